r"""Time of a training step and of a sampling step, ours against PyTorch, on the same network.

    python benchmarks/step.py --config=configs/orl_16_64.py \
        [--batch=16] [--repeats=20] [--dtype=bfloat16]

On one core, for a machine that is not idle:

    taskset -c 0 python benchmarks/step.py --config=configs/orl_16_64.py --cpu-time

First the outputs of both networks are compared at the same parameters in float32; the command
fails where they differ by more than 1e-4. Then the two take turns, round by round, so that whatever
else the machine does slows both, and medians are printed.

Both sides do the whole step: from uint8 images through degradation, noise, network, loss and
gradient to Adam's update; or the network and the update of Algorithm 2. PyTorch runs as its users
run it: channels_last, all cores, eager on a CPU and compiled on a GPU. `diffusers` is there for
scale: a network of its own, of about as many parameters.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# before the libraries start: stay off the network; on a GPU, leave memory to the other library
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from sr3_jax.runtime import allocator

allocator.keep_memory()  # as `sr3` does; PyTorch gains from it as well

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_twin import Twin, compare, nchw, perturbed, torch_parameters

from sr3_jax.method import Method, image_key
from sr3_jax.objectives.levels import sampling_schedule
from sr3_jax.runtime import parallel
from sr3_jax.tasks import operations
from sr3_jax.tasks.task import Given

CHAIN = 4  # sampling steps are timed as a chain of this many
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Run = Callable[[], Any]  # does the work once, and returns when it is done


def load_method(path: str, dtype: str, batch: int) -> Method:
    spec = importlib.util.spec_from_file_location("benchmarked_config", path)
    assert spec, f"{path} is not a Python file"
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    assert config.objective == "sr3", "only objective = 'sr3' has sampling steps to time"
    config.model.dtype, config.train.batch_size, config.train.accumulate = dtype, batch, 1
    # The one degradation that the PyTorch side knows
    config.task.blur, config.task.quantize_lr = 0.0, True
    parallel.start(config)  # as `sr3` does: on a CPU, a device a core
    return Method(config)


# -- ours


def our_training_step(method: Method, params: Any, images: np.ndarray) -> Run:
    optimizer = optax.adam(method.config.train.learning_rate)
    mesh = parallel.make_mesh(method.config)

    def mean_loss(params: Any, images: jax.Array, key: jax.Array) -> jax.Array:
        return method.loss(
            parallel.gather_params(params, mesh, method.config.model.dtype), images, key
        ).mean()

    def step(
        params: Any, opt_state: Any, images: jax.Array, number: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        key = jax.random.fold_in(jax.random.key(0), number)
        loss, gradient = jax.value_and_grad(mean_loss)(params, images, key)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    # a copy: the step overwrites it
    state = [jax.tree.map(jnp.array, params), optimizer.init(params)]
    split = parallel.shardings(state, mesh)
    compiled = jax.jit(
        step, donate_argnums=(0, 1), out_shardings=(*split, parallel.replicated(mesh))
    )
    state, batch, numbers = (
        jax.device_put(state, split),
        parallel.to_devices(images, mesh),
        itertools.count(),
    )

    def run() -> None:
        *state[:], loss = compiled(*state, batch, next(numbers))
        jax.block_until_ready((state, loss))

    return run


def our_sampling_chain(method: Method, params: Any, lr: jax.Array) -> Run:
    mesh = parallel.make_mesh(method.config)
    split = parallel.batch_sharding(mesh)
    chain = jax.jit(
        lambda params, lr, keys: method.super_resolve(params, Given(lr), keys, CHAIN),
        out_shardings=split,
    )
    keys = jax.device_put(jnp.stack([image_key(0, i) for i in range(len(lr))]), split)
    params, lr = jax.device_put(params, parallel.replicated(mesh)), jax.device_put(lr, split)
    return lambda: chain(params, lr, keys).block_until_ready()


# -- the same in PyTorch


def on_device(tensor: Tensor) -> Tensor:
    return tensor.to(DEVICE, memory_format=torch.channels_last)


def ready(network: nn.Module) -> Any:
    """On the device, in PyTorch's fastest usual form there."""
    network = network.to(DEVICE, memory_format=torch.channels_last)
    return torch.compile(network) if DEVICE.type == "cuda" else network


def autocast(method: Method) -> torch.autocast:
    return torch.autocast(
        DEVICE.type, dtype=torch.bfloat16, enabled=method.config.model.dtype == "bfloat16"
    )


def resize(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)


def torch_training_step(method: Method, network: Any, images: np.ndarray) -> Run:
    model, data, train = method.config.model, method.config.data, method.config.train
    pixels, table = (
        on_device(nchw(images)),
        torch.from_numpy(np.array(method.schedule.gamma)).to(DEVICE),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=train.learning_rate)
    distance = F.l1_loss if train.loss == "l1" else F.mse_loss

    def run() -> None:
        network.train()
        hr = pixels.float() / 127.5 - 1
        lr = ((resize(hr, data.lr_size).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        condition = resize(lr, data.hr_size)
        y_0 = (hr - condition) / model.residual_scale if model.predict_residual else hr
        t = torch.randint(1, len(table), (len(hr),), device=DEVICE)
        gamma = table[t] + torch.rand(len(hr), device=DEVICE) * (table[t - 1] - table[t])
        signal, noise = gamma.sqrt()[:, None, None, None], (1 - gamma).sqrt()[:, None, None, None]
        epsilon = torch.randn_like(y_0)
        target = {"epsilon": epsilon, "y_0": y_0, "v": signal * epsilon - noise * y_0}[
            model.predict
        ]
        with autocast(method):
            output = network(condition, signal * y_0 + noise * epsilon, gamma)
        loss = distance(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device

    return run


def torch_sampling_chain(method: Method, network: Any, lr: jax.Array) -> Run:
    model, sample = method.config.model, method.config.sample
    gamma, one_minus, alpha, beta = (
        np.asarray(table, np.float64).tolist() for table in sampling_schedule(method.config, CHAIN)
    )
    small = on_device(nchw(lr))

    def to_y_0(output: Tensor, y_t: Tensor, t: int) -> Tensor:
        signal, noise = gamma[t] ** 0.5, one_minus[t] ** 0.5
        if model.predict == "epsilon":
            return (y_t - noise * output) / signal
        return signal * y_t - noise * output if model.predict == "v" else output

    @torch.inference_mode()
    def run() -> None:
        network.eval()
        condition = resize(small, method.config.data.hr_size)
        offset, scale = (condition, model.residual_scale) if model.predict_residual else (0.0, 1.0)
        y_t = torch.randn_like(condition)
        for t in range(CHAIN, 0, -1):
            with autocast(method):
                output = network(condition, y_t, torch.full((len(y_t),), gamma[t], device=DEVICE))
            y_0 = to_y_0(output, y_t, t)
            if sample.clip:
                y_0 = ((offset + scale * y_0).clamp(-1, 1) - offset) / scale
            mean = (
                gamma[t - 1] ** 0.5 * beta[t] / one_minus[t] * y_0
                + alpha[t] ** 0.5 * one_minus[t - 1] / one_minus[t] * y_t
            )
            variance = (
                beta[t] if sample.variance == "beta" else one_minus[t - 1] * beta[t] / one_minus[t]
            )
            y_t = mean + variance**0.5 * torch.randn_like(y_t) if t > 1 else mean
        (offset + scale * y_t).clamp(-1, 1).cpu()  # waits for the device

    return run


# -- for scale: diffusers


class Diffusers(nn.Module):
    """`diffusers.UNet2DModel` of about `parameters` parameters.

    It takes our network's arguments and works on the same grid.
    """

    def __init__(self, method: Method, parameters: int):
        from diffusers import UNet2DModel

        super().__init__()
        unet = method.model
        self.factor = unet.space_to_depth
        sizes = [unet.size // self.factor // 2**level for level in range(len(unet.multipliers))]
        attention = ["Attn" if size in unet.attention else "" for size in sizes]

        def build(channels: int) -> nn.Module:
            return UNet2DModel(
                sample_size=sizes[0],
                in_channels=2 * unet.out_channels * self.factor**2,
                out_channels=unet.out_channels * self.factor**2,
                block_out_channels=[channels * multiplier for multiplier in unet.multipliers],
                layers_per_block=unet.blocks,
                down_block_types=[f"{kind}DownBlock2D" for kind in attention],
                up_block_types=[f"{kind}UpBlock2D" for kind in reversed(attention)],
                attention_head_dim=unet.head_channels or None,
                norm_num_groups=8,
                dropout=unet.dropout,
            )

        def distance(channels: int) -> int:
            with torch.device("meta"):  # counted without memory
                return abs(count(build(channels).parameters()) - parameters)

        self.network = build(
            min(range(max(8, unet.channels - 32), 2 * unet.channels, 8), key=distance)
        )

    def forward(self, condition: Tensor, y_t: Tensor, gamma: Tensor) -> Tensor:
        x = F.pixel_unshuffle(torch.cat([condition, y_t], dim=1), self.factor).contiguous(
            memory_format=torch.channels_last
        )
        return F.pixel_shuffle(self.network(x, 999 * (1 - gamma)).sample.float(), self.factor)


def count(parameters: Iterator[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


# -- measuring


def in_turns(
    runs: dict[str, Run], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each run, `repeats` times, one run after the other.

    The first round, which compiles, is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
        print(f"round {i} of {repeats}", end="\r", file=sys.stderr, flush=True)
    return {name: values[1:] for name, values in seconds.items()}


def row(name: str, ours: list[float], theirs: list[float], images: int) -> str:
    """Medians in ms per image, and their ratio with the quartiles of the rounds' own ratios."""
    a, b = statistics.median(ours), statistics.median(theirs)
    low, _, high = statistics.quantiles([y / x for x, y in zip(ours, theirs, strict=True)], n=4)
    return (
        f"| {name} | {1000 * a / images:.2f} | {1000 * b / images:.2f} "
        f"| **{b / a:.2f}** ({low:.2f} – {high:.2f}) |"
    )


def version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20, help="rounds, at least 2")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time, on one core; not on a GPU"
    )
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    torch.set_num_threads(cores)
    torch.set_float32_matmul_precision("high")  # on a GPU: TF32, which is XLA's default as well
    if args.cpu_time and (cores > 1 or DEVICE.type == "cuda"):
        raise SystemExit(
            "--cpu-time would count threads that only wait; it needs one core: "
            "`taskset -c 0 python …`"
        )
    method = load_method(args.config, args.dtype, args.batch)
    if (jax.default_backend() == "gpu") != (DEVICE.type == "cuda"):
        raise SystemExit(
            f"JAX runs on {jax.default_backend()} and PyTorch on {DEVICE.type}: nothing to compare"
        )

    images = np.random.default_rng(0).integers(0, 256, (args.batch, *method.shape), np.uint8)
    params = perturbed(jax.jit(method.init)(jax.random.key(0)))
    twins = [Twin(method.model, method.shape[-1]) for _ in range(2)]  # one to train, one to sample
    for twin in twins:
        twin.load_state_dict(torch_parameters(params))

    generator = np.random.default_rng(1)
    condition, y_t = generator.standard_normal((2, 2, *method.shape)).astype(np.float32)
    with (
        jax.default_matmul_precision("highest"),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        exact = method.model.clone(dtype=jnp.float32)
        twins[0].to(DEVICE)
        difference, gradient = compare(
            exact, params, twins[0], [condition, y_t, np.array([0.1, 0.9], np.float32)]
        )
    print(f"outputs differ by at most {difference:.1e}, gradients relatively by {gradient:.1e}\n")
    if difference >= 1e-4:
        raise SystemExit("the two networks are not the same: nothing to compare")

    lr = method.task.corrupt(operations.to_float(jnp.asarray(images))).image
    training, sampling = (ready(twin) for twin in twins)
    runs = {
        "ours, training": our_training_step(method, params, images),
        "PyTorch, training": torch_training_step(method, training, images),
        "ours, sampling": our_sampling_chain(method, params, lr),
        "PyTorch, sampling": torch_sampling_chain(method, sampling, lr),
    }
    parameters = count(twins[0].parameters())
    packages, note = ["jax", "flax", "torch"], ""
    if importlib.util.find_spec("diffusers"):
        other = Diffusers(method, parameters)
        runs["diffusers, training"] = torch_training_step(method, ready(other), images)
        runs["diffusers, sampling"] = torch_sampling_chain(method, ready(other), lr)
        packages.append("diffusers")
        note = f"; diffusers' UNet2DModel {count(other.parameters()) / 1e6:.2f} M"
    seconds = in_turns(
        runs, args.repeats, time.process_time if args.cpu_time else time.perf_counter
    )

    if load > 0.5 and not args.cpu_time:
        print(
            "WARNING: other programs are running; that slows PyTorch's threads, "
            "which wait for one another, more than ours\n"
        )

    where = f"{DEVICE.type}, {cores} core{'s' * (cores > 1)}, load {load:.1f} before"
    clock = "processor" if args.cpu_time else "wall"
    print(
        f"{args.config}, {parameters / 1e6:.2f} M parameters{note}; "
        f"batch {args.batch}, {args.dtype}"
    )
    print(
        f"{datetime.date.today()}, {', '.join(map(version, packages))}; {where}; "
        f"{args.repeats} rounds, {clock} time\n"
    )
    print(
        "| | sr3_jax, ms per image | other, ms per image | other / sr3_jax (quartiles) |\n"
        "|---|---|---|---|"
    )
    for step, size in (("training", args.batch), ("sampling", args.batch * CHAIN)):
        print(row(f"{step} step", seconds[f"ours, {step}"], seconds[f"PyTorch, {step}"], size))
    if note:
        for step, size in (("training", args.batch), ("sampling", args.batch * CHAIN)):
            print(
                row(
                    f"{step} step, diffusers",
                    seconds[f"ours, {step}"],
                    seconds[f"diffusers, {step}"],
                    size,
                )
            )


if __name__ == "__main__":
    main()
