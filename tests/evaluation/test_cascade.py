"""The paper's cascade end to end, on a few photographs in ImageNet's layout.

Train both stages, generate, and measure tables 4 and 5: so that all of it runs the day that the
data are there.
"""

import json

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax import cli
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.evaluation import runs
from sr3_jax.evaluation.protocols import PROTOCOLS, Options
from sr3_jax.metrics.networks.inception import Outputs
from sr3_jax.runtime import parallel

pytestmark = pytest.mark.slow

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")
TINY = """
import runpy

def get_config():
    config = runpy.run_path({path!r})["get_config"]({argument})
    data, model, train = config.data, config.model, config.train
    data.source, data.name, data.folder, data.threads = "folder", "", {data!r}, 1
    model.channels, model.multipliers, model.blocks, model.dropout = 8, (1,), 1, 0.0
    model.attention, model.head_channels, model.middle_attention = (), 0, False
    model.space_to_depth, model.dtype, model.remat = {fold}, "float32", ()
    config.mesh.data, config.mesh.fsdp = -1, 1
    train.batch_size, train.steps, train.checkpoint_every = 8, 2, 2
    train.evaluate_every = 1_000_000
    train.warmup_steps, train.log_every = 1, 1
    {more}
    return config
"""


class StandIn:
    """In FID's place: colours and their variation."""

    name, resize = "stand-in", "none"

    def __call__(self, pixels):
        values = np.asarray(pixels, np.float32) / 255
        features = np.concatenate([values.mean((1, 2)), values.std((1, 2))], 1)
        return Outputs(features, features[:, :5] * 10)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """TRAIN/WNID/NAME.JPEG: three classes, ten images of each."""
    root = tmp_path_factory.mktemp("train")
    for number, name in enumerate(PHOTOGRAPHS):
        photograph = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        (root / f"n0000000{number}").mkdir()
        for i in range(10):
            part = photograph.crop((4 * i, 2 * i, 4 * i + 300, 2 * i + 260))
            part.save(root / f"n0000000{number}" / f"{i}.JPEG", quality=95)
    return root


def train(name, imagenet, folder, *, fold, argument="", more="pass"):
    file = folder / f"{name}.py"
    path = f"configs/{name}.py"
    file.write_text(
        TINY.format(path=path, argument=argument, data=str(imagenet), fold=fold, more=more)
    )
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        code = cli.main(["train", f"--config={file}", f"--workdir={folder / name}"])
    assert code == 0
    return folder / name


@pytest.fixture(autouse=True)
def _started(monkeypatch):
    """JAX runs already in this process."""
    monkeypatch.setattr(parallel, "start", lambda config=None: None)


def test_both_stages_are_trained_generate_and_are_measured(imagenet, tmp_path, capsys):
    base = train("imagenet_64_base", imagenet, tmp_path, fold=4, more="model.classes = 3")
    stage = train("imagenet_64_256", imagenet, tmp_path, fold=8, argument='"cascade"')
    assert load_checkpoint(stage).config.task.augment > 0
    made = tmp_path / "made"
    words = ["generate", f"--stage={base}", f"--stage={stage}", f"--output={made}", "--quiet"]
    choices = ["--count=12", "--classes=balanced", "--steps=3,2", "--guidance=1.5,1"]
    assert cli.main([*words, *choices, "--augment=10", "--keep-stages"]) == 0
    manifest = json.loads((made / "manifest.json").read_text())
    assert [one["guidance"] for one in manifest["stages"]] == [1.5, 1]
    assert manifest["class_names"] == ["n00000000", "n00000001", "n00000002"]

    reference = runs.statistics(imagenet_squares(imagenet, tmp_path), tmp_path, StandIn(), print)
    options = Options(images={"cascade": made}, inception=StandIn(), reference=reference)
    results, _ = runs.run(PROTOCOLS["table4"], [], tmp_path / "table4", options)
    row = results["methods"]["cascade"]
    assert row["fid"] > 0
    assert row["inception_score"] >= 1
    assert results["data"]["sets"]["cascade"]["generated"]["stages"] == manifest["stages"]
    assert "SR3 cascade (paper)" in results["paper"]

    lr = Options(lr=made / "stage-1", inception=StandIn(), reference=reference)
    results, _ = runs.run(PROTOCOLS["table5"], [load_checkpoint(stage)], tmp_path / "table5", lr)
    assert results["n"] == 12
    assert list(results["methods"]) == ["bicubic", "blur 1, L1"]
    capsys.readouterr()


def imagenet_squares(imagenet, folder):
    """The data as 256×256 squares, whose statistics FID compares with."""
    target = folder / "squares"
    target.mkdir()
    for i, file in enumerate(sorted(imagenet.rglob("*.JPEG"))):
        Image.open(file).crop((0, 0, 256, 256)).save(target / f"{i}.png")
    return target


def test_a_network_is_not_trained_on_a_folder_of_other_classes(imagenet, tmp_path, capsys):
    file = tmp_path / "config.py"
    more = "model.classes = 4"
    path = "configs/imagenet_64_base.py"
    file.write_text(TINY.format(path=path, argument="", data=str(imagenet), fold=4, more=more))
    assert cli.main(["train", f"--config={file}", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "4 classes cannot be trained on images of 3" in capsys.readouterr().err
