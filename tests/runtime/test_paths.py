"""Workdirs and data in a bucket: real commands against a Cloud Storage server on this machine."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.runtime import startup
from tests import tiny
from tests.bucket import Bucket as Cloud
from tests.tiny import assert_same_bits

pytestmark = pytest.mark.slow

BUCKET = "gs://bucket"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A bucket, with run(*arguments) that runs `sr3` where it is the one that gs:// leads to."""
    root = tmp_path_factory.mktemp("cloud")
    (root / "tensorflow.py").write_text(
        'raise ImportError("it has a driver of its own, which looks elsewhere")'
    )
    with Cloud() as cloud:
        environment = os.environ | {
            "STORAGE_EMULATOR_HOST": f"http://localhost:{cloud.port}",  # gcsfs
            "TENSORSTORE_GCS_HTTP_URL": f"http://localhost:{cloud.port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "JAX_NUM_CPU_DEVICES": "2",
            "TMPDIR": str(root),
            "XDG_CACHE_HOME": str(root / "cache"),
            "JAX_COMPILATION_CACHE_DIR": str(startup.cache_folder()),
            "PYTHONPATH": str(root),
        }

        def start(*arguments):
            command = [sys.executable, "-m", "sr3_jax", *map(str, arguments)]
            return subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

        def run(*arguments):
            process = start(*arguments)
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            return output

        yield SimpleNamespace(
            start=start, run=run, put=cloud.put, get=lambda name: cloud.objects[name].data
        )


def png(rng):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 20, 1), np.uint8)[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def train(place, *flags):
    return "train", f"--config={tiny.__file__}", f"--workdir={place}", *flags


def test_a_run_in_a_bucket_survives_a_kill_and_ends_as_one_on_this_machine(bucket, tmp_path):
    place = f"{BUCKET}/run"
    process = bucket.start(
        *train(place, "--config.train.steps=1000000", "--config.train.checkpoint_every=2")
    )
    for line in process.stdout:
        if line.startswith("step 5/"):
            break
    else:
        raise AssertionError(process.stderr.read())
    process.kill()
    process.communicate()
    output = bucket.run(
        *train(place, "--config.train.steps=8", "--config.train.checkpoint_every=2")
    )
    assert "resuming from step" in output
    bucket.run(*train(tmp_path / "here", "--config.train.steps=8"))
    bucket.run("export", f"--checkpoint={place}", f"--output={tmp_path / 'there.safetensors'}")
    there, here = (
        load_checkpoint(tmp_path / "there.safetensors"),
        load_checkpoint(tmp_path / "here"),
    )
    assert (there.step, here.step) == (8, 8)
    assert_same_bits(there.params, here.params)
    steps = [
        json.loads(line)["step"] for line in bucket.get("run/stats.jsonl").decode().splitlines()
    ]
    assert steps == sorted(steps)
    assert steps[-1] == 8
    assert Image.open(io.BytesIO(bucket.get("run/samples/00000008.png"))).size[0] > 100

    bucket.run("evaluate", f"--workdir={place}", "--limit=2")
    assert json.loads(bucket.get("run/evaluation/held_out/results.json"))["n"] == 2
    bucket.run("export", f"--checkpoint={place}", f"--output={BUCKET}/model.safetensors")
    bucket.run(
        "export",
        f"--checkpoint={BUCKET}/model.safetensors",
        f"--output={tmp_path / 'again.safetensors'}",
    )
    assert_same_bits(load_checkpoint(tmp_path / "again.safetensors").params, here.params)


def test_images_in_a_bucket_train_from_the_folder_and_prepared(bucket, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        data = png(rng)
        bucket.put(f"photos/{i % 3}/{i}.png", data)
        (tmp_path / "photos" / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / f"{i % 3}" / f"{i}.png").write_bytes(data)
    bucket.run("prepare", f"{BUCKET}/photos", "--size=16", f"--output={BUCKET}/prepared")
    found = {}
    for source, place in (
        ("folder", tmp_path / "photos"),
        ("folder", f"{BUCKET}/photos"),
        ("records", f"{BUCKET}/prepared"),
    ):
        workdir = tmp_path / f"{len(found)}"
        flags = [
            f"--config.data.source={source}",
            f"--config.data.folder={place}",
            "--config.data.crop_jitter=0",
        ]
        bucket.run(*train(workdir, *flags, "--config.train.steps=2"))
        found[place] = load_checkpoint(workdir).params
    first, *others = found.values()
    for other in others:
        assert_same_bits(other, first)


def test_a_bucket_that_is_not_there_is_one_sentence(bucket, tmp_path):
    process = bucket.start("evaluate", "--workdir=nope://bucket/run")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert errors.startswith("sr3: nope://bucket/run cannot be reached")
    process = bucket.start("evaluate", f"--workdir={BUCKET}/nothing")
    _, errors = process.communicate()
    assert (process.returncode, "no checkpoint at" in errors) == (2, True)
