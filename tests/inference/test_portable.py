"""Programs of StableHLO, run where this package is not."""

import json
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.errors import UserError
from sr3_jax.inference import portable
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
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


def test_what_cannot_be_exported_is_one_sentence(tmp_path, capsys):
    with pytest.raises(UserError, match="makes images from noise"):
        portable.bundle(random_checkpoint(base_config(), "base"))
    for words, sentence in (
        (["--format=stablehlo", "-o", "a.safetensors"], "must end in .zip"),
        (["-o", "a.zip"], "must end in .safetensors"),
        (["--steps=2", "-o", "a.safetensors"], "--steps is for --format=stablehlo"),
    ):
        assert cli.main(["export", "--checkpoint=faces-16-64", *words]) == 2
        assert sentence in capsys.readouterr().err
