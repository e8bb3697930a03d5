"""Other projects' checkpoints become ours: the same outputs, for every option of their networks."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import Upscaler, cli
from sr3_jax.checkpoints.foreign import FORMATS
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.diffusion import samplers
from sr3_jax.errors import UserError
from sr3_jax.method import sampling_steps
from sr3_jax.runtime import parallel
from sr3_jax.training import log
from tests.checkpoints.peers import GuidedDiffusion, Janspiry, saved

B = 2
RNG = np.random.default_rng(3)


def ours(x):
    """(b, c, h, w) as (b, h, w, c)."""
    return jnp.asarray(np.moveaxis(x, 1, -1), jnp.float32)


def theirs(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def on_device(checkpoint):
    return jax.tree.map(jnp.asarray, checkpoint.params)


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


BETAS = {"betas": np.linspace(1e-4, 0.1, 10).astype(np.float32)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"multipliers": (1, 2, 4), "attention": (4, 16)},
        {"blocks": 2, "attention": (), "groups": 16},
        {"c": 1, "multipliers": (2, 3), "attention": (16,)},
    ],
    ids=["plain", "deep", "blocks", "grey"],
)
def test_janspirys_network_is_the_same_in_every_shape(options):
    network = Janspiry(**options)
    weights = network.weights()
    said = {"hr_size": 16, "lr_size": 4, "groups": network.groups}
    checkpoint = FORMATS["janspiry"](weights | BETAS, "a_gen.pth", said, "a")
    shape = (B, network.c, 16, 16)
    condition, y, gamma = drawn(*shape), drawn(*shape), np.array([0.02, 0.7], np.float32)
    expected = network(weights, np.concatenate([condition, y], 1), np.sqrt(gamma))
    run = checkpoint.method.network(on_device(checkpoint))
    found = run(ours(condition), ours(y), jnp.asarray(gamma))
    np.testing.assert_allclose(theirs(found), expected, atol=1e-5 * np.abs(expected).max())
    schedule = checkpoint.config.schedule
    assert (schedule.name, schedule.steps, schedule.beta_end) == ("linear", 10, 0.1)


CASES = {
    "legacy order": {},
    "new order": {"order": "new"},
    "one head": {"heads": 1},
    "head channels": {"heads": 0, "head_channels": 16, "order": "new"},
    "unconditional": {"classes": 0},
    "no scale-shift": {"film": False},
    "plain resampling": {"updown": False, "attention": (8, 4)},
    "known variance": {"sigma": False},
    "grey": {"c": 1},
    "three levels": {"multipliers": (1, 2, 3), "blocks": 2, "attention": (8, 2)},
    "attention nowhere but in the middle": {"attention": ()},
    "half as wide": {"channels": 32, "embedding": 64, "multipliers": (1, 4)},
    "upsampler": {"seen": 2, "attention": (8,)},
    "plain grey upsampler": {"seen": 2, "c": 1, "updown": False, "classes": 0},
}


def imported(network, **more):
    said = {
        "hr_size": network.size,
        "heads": network.heads,
        "head_channels": network.head_channels,
        "attention_order": network.order,
        "noise": "linear",
    }
    if network.seen == 2:
        said["lr_size"] = network.size // 4
    weights = network.weights()
    return weights, FORMATS["guided-diffusion"](weights, "a.pt", said | more, "a")


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("noise", ["linear", "cosine"])
def test_guided_diffusions_network_is_the_same_with_every_option(options, noise):
    network = GuidedDiffusion(**options)
    weights, checkpoint = imported(network, noise=noise)
    method = checkpoint.method
    c, size, t = network.c, network.size, np.array([3, 990])
    y, label = drawn(B, c, size, size), np.array([0, 2])
    lr = ours(drawn(B, c, size // 4, size // 4))
    condition = method.task.condition(lr) if network.seen == 2 else ours(y)[..., :0]
    seen = np.concatenate([y, theirs(condition)], 1)
    expected = network(weights, seen, t, label)
    told = {"label": jnp.asarray(label, jnp.float32)} if network.classes else None
    run = method.network(on_device(checkpoint), told, variance=True)
    found = run(condition, ours(y), method.schedule.gamma[t + 1])
    np.testing.assert_allclose(theirs(found), expected, atol=2e-5 * np.abs(expected).max())
    assert checkpoint.config.model.learned_variance == network.sigma


def test_between_two_levels_of_the_schedule_the_number_is_between_theirs():
    _, checkpoint = imported(GuidedDiffusion())
    method = checkpoint.method
    from sr3_jax.models.blocks import timestep_of

    gamma = np.asarray(method.schedule.gamma)[1:]
    levels = method.model.timesteps
    np.testing.assert_array_equal(timestep_of(jnp.asarray(gamma), levels), np.arange(1000))
    between = timestep_of(jnp.asarray(np.sqrt(gamma[100:900] * gamma[101:901])), levels)
    np.testing.assert_allclose(between, np.arange(100, 900) + 0.5, atol=0.02)


def chain(checkpoint, table, start, noise, condition, signals):
    """`samplers.sample` with given noise, that of the first row first."""
    count = table.evaluations
    whole = jnp.asarray(np.stack([np.moveaxis(x, 1, -1) for x in (*noise[::-1], start)]))

    def given(images, keys, t):
        return whole[jnp.where(t == count + 1, count, t - 1)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "noise_like", given)
        denoise = checkpoint.method.denoiser(
            on_device(checkpoint), signals, variance=table.narrowing is not None
        )
        keys = jax.random.split(jax.random.key(0), B)
        return theirs(samplers.sample(denoise, condition, keys, table, shape=ours(start).shape))


def test_the_ancestral_chain_with_a_learned_variance_is_theirs():
    """As their program does it, step by step, in NumPy."""
    network = GuidedDiffusion(classes=0)
    weights, checkpoint = imported(network, noise="cosine")
    steps = 6
    gamma = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    gamma = np.cumprod(1 - np.minimum(1 - gamma[1:] / gamma[:-1], 0.999))
    kept = np.round(np.linspace(0, 999, steps)).astype(int)
    gamma = np.concatenate([[1.0], gamma[kept]])
    start, noise = drawn(B, 3, 8, 8), drawn(steps, B, 3, 8, 8)
    y = start.astype(np.float64)
    for row, t in enumerate(range(steps, 0, -1)):
        beta = 1 - gamma[t] / gamma[t - 1]
        posterior = beta * (1 - gamma[t - 1]) / (1 - gamma[t])
        epsilon, v = np.split(network(weights, y, np.full(B, kept[t - 1])), 2, 1)
        y_0 = np.clip((y - np.sqrt(1 - gamma[t]) * epsilon) / np.sqrt(gamma[t]), -1, 1)
        mean = np.sqrt(gamma[t - 1]) * beta / (1 - gamma[t]) * y_0
        mean += np.sqrt(1 - beta) * (1 - gamma[t - 1]) / (1 - gamma[t]) * y
        if t > 1:
            share = (v + 1) / 2
            log_variance = share * np.log(beta) + (1 - share) * np.log(posterior)
            mean += np.exp(log_variance / 2) * noise[row]
        y = mean
    table = sampling_steps(checkpoint.config, steps)
    found = chain(checkpoint, table, start, noise, ours(start)[..., :0], None)
    np.testing.assert_allclose(found, y, atol=1e-4)


def test_ddim_at_every_hundredth_level_is_theirs():
    network = GuidedDiffusion(classes=0)
    weights, checkpoint = imported(network)
    gamma = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[::200]])
    y = start = drawn(B, 3, 8, 8)
    for t in range(5, 0, -1):
        epsilon = network(weights, y, np.full(B, 200 * (t - 1)))[:, :3]
        y_0 = np.clip((y - np.sqrt(1 - gamma[t]) * epsilon) / np.sqrt(gamma[t]), -1, 1)
        epsilon = (y - np.sqrt(gamma[t]) * y_0) / np.sqrt(1 - gamma[t])
        y = np.sqrt(gamma[t - 1]) * y_0 + np.sqrt(1 - gamma[t - 1]) * epsilon
    changes = {"sampler": "ddim", "schedule": "ddim_respacing"}
    table = sampling_steps(checkpoint.config, 5, changes)
    found = chain(checkpoint, table, start, np.zeros((5, *start.shape)), ours(y)[..., :0], None)
    np.testing.assert_allclose(found, y, atol=3e-4)


def test_janspirys_chain_is_theirs():
    network = Janspiry()
    weights = network.weights()
    said = {"hr_size": 16, "lr_size": 4, "groups": 8}
    checkpoint = FORMATS["janspiry"](weights | BETAS, "a", said, "a")
    condition, start, noise = drawn(B, 3, 16, 16), drawn(B, 3, 16, 16), drawn(10, B, 3, 16, 16)
    beta = BETAS["betas"].astype(np.float64)
    gamma = np.concatenate([[1.0], np.cumprod(1 - beta)])
    y = start.astype(np.float64)
    for row, t in enumerate(range(10, 0, -1)):
        root = np.full(B, np.sqrt(gamma[t]))
        epsilon = network(weights, np.concatenate([condition, y], 1), root)
        y_0 = np.clip((y - np.sqrt(1 - gamma[t]) * epsilon) / np.sqrt(gamma[t]), -1, 1)
        b = beta[t - 1]
        y = (
            np.sqrt(gamma[t - 1]) * b / (1 - gamma[t]) * y_0
            + np.sqrt(1 - b) * (1 - gamma[t - 1]) / (1 - gamma[t]) * y
        )
        variance = b * (1 - gamma[t - 1]) / (1 - gamma[t])
        y = y + (np.sqrt(variance) * noise[row] if t > 1 else 0)
    table = sampling_steps(checkpoint.config)
    found = chain(checkpoint, table, start, noise, ours(condition), None)
    np.testing.assert_allclose(found, y, atol=1e-4)


# -- the command


class Storage:
    """What a pickle of PyTorch's holds for a tensor's raw array."""

    def __init__(self, key, array):
        self.key, self.array = key, array


@pytest.fixture
def sr3(monkeypatch, capsys):
    """sr3(*words): exit code, and what was said to standard error."""
    monkeypatch.setattr(parallel, "start", lambda config=None: None)

    def run(*words):
        code = cli.main([str(word) for word in words])
        return code, capsys.readouterr().err

    return run


def test_an_imported_network_enlarges_generates_and_is_tuned_like_any_other(tmp_path, sr3):
    janspiry = saved(tmp_path / "a_gen.pth", Janspiry().weights() | BETAS)
    base = saved(tmp_path / "base.pt", GuidedDiffusion(size=4, attention=(4,)).weights())
    upsampler = GuidedDiffusion(size=8, seen=2)
    upsampler = saved(tmp_path / "up.pt", upsampler.weights())
    config = tmp_path / "sr3.json"
    config.write_text(
        '{"name": "sr3", // the project\n "model": {"unet": {"norm_groups": 8},\n'
        '"beta_schedule": {"val": {"schedule": "linear", "n_timestep": 20, // steps\n'
        '"linear_start": 1e-4, "linear_end": 0.2}}},\n'
        '"datasets": {"train": {"l_resolution": 4, "r_resolution": 16}}}'
    )
    flags = ["--from=guided-diffusion", "--noise-schedule=linear", "--heads=2"]
    to = [tmp_path / f"{name}.safetensors" for name in ("a", "base", "up")]
    assert sr3("import", janspiry, "--from=janspiry", f"--json={config}", "-o", to[0])[0] == 0
    assert sr3("import", base, *flags, "--hr-size=4", "-o", to[1])[0] == 0
    assert sr3("import", upsampler, *flags, "--hr-size=8", "--lr-size=4", "-o", to[2])[0] == 0
    checkpoint = load_checkpoint(to[0])
    assert (checkpoint.config.schedule.steps, checkpoint.config.schedule.beta_end) == (20, 0.2)

    upscaler = Upscaler(checkpoint)
    image = RNG.integers(0, 256, (5, 7, 3), np.uint8)
    for more in ({"steps": 3}, {"steps": 2, "sampler": "ddim"}):
        assert upscaler(image, **more).shape == (20, 28, 3)
    out = tmp_path / "made"
    words = [f"--stage={to[1]}", f"--stage={to[2]}", "--count=4", "--steps=3,2", "-o", out]
    assert sr3("generate", *words)[0] == 0
    assert len(list(out.glob("images/*/*.png"))) == 4


@pytest.mark.slow
def test_an_imported_network_is_a_start_and_a_teacher(tmp_path, sr3, monkeypatch):
    network = GuidedDiffusion(size=16, seen=2, c=1, classes=0, attention=(8,))
    source = saved(tmp_path / "up.pt", network.weights())
    flags = ["--from=guided-diffusion", "--noise-schedule=linear", "--heads=2", "--hr-size=16"]
    to = tmp_path / "up.safetensors"
    assert sr3("import", source, *flags, "--lr-size=4", "-o", to)[0] == 0
    changes = {
        "data.source": "orl",
        "data.fit": "resize",
        "train.batch_size": 8,
        "train.steps": 2,
        "train.warmup_steps": 0,
        "train.evaluate_images": 2,
    }
    words = ["train", f"--config={to}", *(f"--config.{k}={v}" for k, v in changes.items())]
    tuned = tmp_path / "tuned"
    monkeypatch.setattr(log, "_tensorboard", lambda workdir: None)
    student = [f"--workdir={tmp_path / 'student'}", f"--teacher={to}", "--config.sample.steps=2"]
    with jax.numpy_dtype_promotion("standard"):  # Adam's count is an integer
        assert sr3(*words, f"--workdir={tuned}", f"--config.train.init_from={to}")[0] == 0
        assert sr3(*words, *student, "--config.sample.schedule=log_snr")[0] == 0
    assert load_checkpoint(tmp_path / "student").step == 2
    before, after = (load_checkpoint(place).params["out"]["bias"] for place in (to, tuned))
    assert (np.asarray(before) != np.asarray(after)).all()  # the image's, and the variance's


def peak(*words):
    """The most memory that a command takes, in bytes."""
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'sr3_jax', *sys.argv[1:]], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=True
    )
    return 1024 * int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere in other units")
def test_importing_takes_less_than_twice_the_files_size_of_memory(tmp_path):
    taken, sizes = [], []
    for name, channels in (("small", 32), ("large", 224)):
        network = GuidedDiffusion(
            channels=channels, multipliers=(1, 2, 2), blocks=2, size=16, attention=()
        )
        file = saved(tmp_path / f"{name}.pt", network.weights())
        flags = ["--from=guided-diffusion", "--noise-schedule=linear", "--heads=2", "--hr-size=16"]
        taken.append(peak("import", file, *flags, "-o", tmp_path / f"{name}.safetensors"))
        sizes.append(file.stat().st_size)
    assert sizes[1] > 200e6
    more = sizes[1] - sizes[0]
    assert 0.5 * more < taken[1] - taken[0] < 2 * more


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--from=guided-diffusion"], "give --hr-size, --noise-schedule=linear or cosine, --heads"),
        (["--from=janspiry"], "is of another network: it has no downs.0.bias"),
        (["--from=guided-diffusion", "--hr-size=0"], "--hr-size=0 must be at least 1"),
        (
            ["--from=guided-diffusion", "--hr-size=7", "--noise-schedule=linear", "--heads=2"],
            "data.hr_size = 7 must be divisible by 2",
        ),
        (["--from=guided-diffusion", "--json=none.json"], "--json=none.json cannot be read"),
        (["--from=elsewhere"], "'elsewhere' is not one of"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(tmp_path, sr3, words, sentence):
    file = saved(tmp_path / "a.pt", GuidedDiffusion().weights())
    code, said = sr3("import", file, *words, "-o", tmp_path / "a.safetensors")
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "a.safetensors").exists()


def test_a_file_that_would_run_something_or_lacks_or_adds_weights_is_refused(tmp_path):
    network = GuidedDiffusion()
    whole = network.weights()
    read = FORMATS["guided-diffusion"]
    said = {"hr_size": 8, "heads": 2, "noise": "linear"}
    with pytest.raises(UserError, match=r"nothing takes its extra\.weight"):
        read(whole | {"extra.weight": np.zeros(1)}, "a.pt", said, "a")
    for name in ("middle_block.1.qkv.weight", "out.2.weight", "time_embed.2.bias"):
        with pytest.raises(UserError, match="is of another network: it has no"):
            read({key: x for key, x in whole.items() if key != name}, "a.pt", said, "a")
    broken = whole | {"out.2.bias": np.full(6, np.nan, np.float32)}
    with pytest.raises(UserError, match=r"a\.pt is damaged: out\.bias has values that are not fin"):
        read(broken, "a.pt", said, "a")


def test_the_public_files_are_known_by_name():
    network = GuidedDiffusion(channels=32, multipliers=(1, 2, 3, 4), size=64, blocks=1)
    options = {"attention": (32, 16, 8), "heads": 0, "head_channels": 64, "order": "new"}
    vars(network).update(options | {"multipliers": (2, 4, 6, 8)})
    weights = network.weights()
    checkpoint = FORMATS["guided-diffusion"](weights, "in/64x64_diffusion.pt", {}, "a")
    config = checkpoint.config
    assert (config.data.hr_size, config.schedule.name) == (64, "cosine_beta")
    assert tuple(config.model.attention) == (8, 16, 32)
    assert config.model.head_channels == 64
    assert config.task.kind == "generation"
