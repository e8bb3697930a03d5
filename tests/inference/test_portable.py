"""Programs of StableHLO, run where this package is not."""

import dataclasses
import json
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from sr3_jax import cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.diffusion import samplers
from sr3_jax.errors import UserError
from sr3_jax.inference import portable
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import image_key, sampling_steps
from sr3_jax.tasks.task import Given
from tests.inference.test_generator import base_config
from tests.tiny import random_checkpoint, refining_checkpoint, tiny_checkpoint

BARE = """
import sys, zipfile
import numpy as np
from jax import export
with zipfile.ZipFile(sys.argv[1]) as archive:
    programs = {
        name: export.deserialize(bytearray(archive.read(f"{name}.stablehlo")))
        for name in ("sampler", "denoiser")
    }
given = np.load(sys.argv[2])
told = {name: given[name] for name in given if name not in ("lr", "condition", "y", "gamma")}
hr = programs["sampler"].call(given["lr"], np.uint32(0), told)
y_0 = programs["denoiser"].call(given["condition"], given["y"], given["gamma"], told)
assert "sr3_jax" not in sys.modules
np.savez(sys.argv[3], hr=hr, y_0=y_0)
"""


@pytest.mark.parametrize("kind", ["unet", "refine"])
def test_both_programs_run_with_jax_alone_and_give_what_ours_give(tmp_path, kind):
    checkpoint = tiny_checkpoint() if kind == "unet" else refining_checkpoint()
    export(checkpoint, tmp_path / "a.safetensors")
    # in a process of its own: sizes are symbols, which checks of types do not take for numbers
    words = ["export", f"--checkpoint={tmp_path / 'a.safetensors'}", "--format=stablehlo"]
    words += ["--steps=3", "-o", str(tmp_path / "a.zip")]
    subprocess.run([sys.executable, "-m", "sr3_jax", *words], check=True)
    engine = Upscaler(checkpoint).engine
    rng = np.random.default_rng(0)
    side = 8 if kind == "unet" else 11  # without attention any size
    lr = rng.uniform(-1, 1, (2, side, side, 1)).astype(np.float32)
    told = {"noise": np.full(2, 2.0, np.float32)} if kind == "refine" else {}
    size = (2, 2 * side, 2 * side)
    given = {
        "lr": lr,
        "condition": np.zeros((*size, checkpoint.method.condition_channels), np.float32),
        "y": rng.normal(size=(*size, 1)).astype(np.float32),
        "gamma": np.array([0.2, 0.9], np.float32),
    }
    np.savez(tmp_path / "given.npz", **given, **told)
    code = [sys.executable, "-c", BARE, tmp_path / "a.zip", tmp_path / "given.npz"]
    subprocess.run([*code, tmp_path / "found.npz"], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npz")
    if kind == "unet":
        np.testing.assert_allclose(found["hr"], engine.batch(lr, [0, 1], Sampling(3)), atol=1e-5)
    assert found["hr"].shape == (*size, 1)
    told = jax.tree.map(jnp.asarray, told)
    denoise = checkpoint.method.denoiser(engine.params, told)
    ours = denoise(*(jnp.asarray(given[name]) for name in ("condition", "y", "gamma")))
    np.testing.assert_allclose(found["y_0"], ours, atol=1e-5)

    about = json.loads(zipfile.ZipFile(tmp_path / "a.zip").read("about.json"))
    assert set(about["platforms"]) == {"cpu", "cuda", "tpu"}
    assert about["evaluations"] == 3
    assert list(about["told"]) == list(told)


@pytest.mark.parametrize("kind", ["unet", "refine"])
@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_onnx_gives_what_our_own_sampler_gives_of_the_same_noise(tmp_path, kind, sampler):
    checkpoint = tiny_checkpoint() if kind == "unet" else refining_checkpoint()
    config = checkpoint.config.copy_and_resolve_references()
    config.sample.sampler = sampler
    export(dataclasses.replace(checkpoint, config=config), tmp_path / "a.safetensors")
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    words = ["export", f"--checkpoint={tmp_path / 'a.safetensors'}", "--format=onnx", "--steps=3"]
    side = 8 if kind == "unet" else 12
    words += [f"--size={side}", "-o", str(tmp_path / "a.onnx")]
    done = subprocess.run(
        [sys.executable, "-m", "sr3_jax", *words], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", options)
    names = [given.name for given in session.get_inputs()]
    signals = [signal.name for signal in checkpoint.method.task.signals]
    assert names == ["lr", "random", *signals]
    about = session.get_modelmeta().custom_metadata_map
    assert about["evaluations"] == "3"

    rng = np.random.default_rng(0)
    lr = rng.uniform(-1, 1, (3, side, side, 1)).astype(np.float32)
    told = {name: np.array([0, 2, np.nan], np.float32) for name in signals}
    engine = Upscaler(checkpoint).engine
    keys = jax.vmap(lambda i: image_key(0, i))(jnp.arange(3))
    # of y_T, and of the rows that add noise
    numbers = [4, 3, 2] if sampler == "ancestral" else [4]
    empty = jnp.zeros((3, 2 * side, 2 * side, 1))
    drawn = [samplers.noise_like(empty, keys, number) for number in numbers]
    [found] = session.run(None, {"lr": lr, "random": np.stack(drawn, axis=1), **told})
    given = Given(jnp.asarray(lr), jax.tree.map(jnp.asarray, told))
    table = sampling_steps(checkpoint.config, 3)
    ours = checkpoint.method.super_resolve(engine.params, given, keys, table)
    np.testing.assert_allclose(found, ours, atol=2e-5)


def test_onnx_without_its_converter_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"--format=onnx needs .*: pip install 'sr3_jax\[onnx\]'"):
        portable.onnx(tiny_checkpoint())


def test_what_cannot_be_exported_is_one_sentence(tmp_path, capsys):
    with pytest.raises(UserError, match="is for generation; programs are of networks that enlarge"):
        portable.stablehlo(random_checkpoint(base_config(), "base"))
    for words, sentence in (
        (["--format=stablehlo", "-o", "a.safetensors"], "must end in .zip"),
        (["-o", "a.zip"], "must end in .safetensors"),
        (["--steps=2", "-o", "a.safetensors"], "--steps is for --format=stablehlo and onnx"),
        (["--size=8", "--format=stablehlo", "-o", "a.zip"], "--size is for --format=onnx"),
        (["--format=onnx", "-o", "a.onnx"], "takes 32 evaluations; --format=onnx is for 16 at"),
        (
            ["--steps=2", "--size=8", "--format=onnx", "-o", "a.onnx"],
            "--size=8: for faces-16-64 it must be 16",
        ),
    ):
        assert cli.main(["export", "--checkpoint=faces-16-64", *words]) == 2
        assert sentence in capsys.readouterr().err
