"""Sets of generated images by class, against a data set of the same classes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import cli
from sr3_jax.errors import UserError
from sr3_jax.evaluation import labelled_sets, runs
from sr3_jax.evaluation.protocols import PROTOCOLS, Options
from sr3_jax.images import arrays
from sr3_jax.metrics.networks.inception import Outputs
from sr3_jax.runtime import parallel
from sr3_jax.runtime.parallel import Shard

CLASSES = ("dark", "light", "striped")
FASHION = PROTOCOLS["fashion"]


def image(label: int, rng: np.random.Generator, size: int = 28) -> np.ndarray:
    """A grey image whose class can be seen."""
    base = {0: np.full((size, size), 60.0), 1: np.full((size, size), 190.0)}.get(
        label, np.tile([60.0, 190.0], (size, size // 2))
    )
    return np.clip(base + rng.normal(0, 15, (size, size)), 0, 255).astype(np.uint8)[..., None]


def fill(root, count, seed, size=28, shift=0):
    """A folder of `count` images of each class; with a shift, each is of another class."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        for number in range(count):
            made = image((label + shift) % 3, rng, size)
            arrays.write(root / name / f"{number:03}.png", made)
    return root


@pytest.fixture(autouse=True)
def _standard_promotion():
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        yield


class Network:
    """Features: the means of 16 squares. Logits: right for the three classes."""

    name, resize = "means of squares", "none"

    def __call__(self, images):
        x = jnp.asarray(images, jnp.float32).mean(-1) / 255
        features = x.reshape(len(x), 4, 7, 4, 7).mean((2, 4)).reshape(len(x), 16)
        stripes = jnp.abs(x[:, :, ::2] - x[:, :, 1::2]).mean((1, 2))
        mean = x.mean((1, 2))
        logits = jnp.stack([0.5 - mean, mean - 0.5, 10 * (stripes - 0.25)], axis=1)
        return Outputs(features, logits)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {
        "data": fill(root / "data", 60, 0),
        "good": fill(root / "good", 40, 1),
        "small": fill(root / "small", 40, 2, size=14),
        "wrong": fill(root / "wrong", 40, 3, shift=1),
    }


def run(places, folder, *names, **options):
    images = {name: places[name] for name in names}
    found = Options(data=str(places["data"]), images=images, **options)
    return labelled_sets.run(FASHION, folder, found, Network())


def test_a_good_set_is_near_and_teaches_and_a_wrong_one_is_neither_of_its_classes(places, tmp_path):
    found = run(places, tmp_path, "good", "wrong")
    methods = found["methods"]
    assert list(methods) == [labelled_sets.REAL, "good", "wrong"]
    assert found["data"]["classes"] == list(CLASSES)
    good, wrong = methods["good"], methods["wrong"]
    assert good["as_asked"] == 1
    assert wrong["as_asked"] == 0
    assert good["cas"] > 0.9
    assert wrong["cas"] < 0.1
    # the same images by all that does not look at classes
    assert good["fd"] == pytest.approx(wrong["fd"], abs=0.01)
    assert good["images"] == 120


def test_smaller_images_are_enlarged_as_the_base_of_a_cascade_must_be(places, tmp_path):
    small = run(places, tmp_path, "small", limit=60)["methods"]["small"]
    assert small["images"] == 60
    assert small["as_asked"] > 0.6  # its stripes of one pixel are blurred
    assert small["fd"] > 0


def test_what_is_measured_is_kept_until_the_set_changes(places, tmp_path):
    run(places, tmp_path, "good", limit=60)
    row = tmp_path / "rows" / "good.json"
    kept = json.loads(row.read_text())
    row.write_text(json.dumps(kept | {"values": kept["values"] | {"cas": -1.0}}))
    assert run(places, tmp_path, "good", limit=60)["methods"]["good"]["cas"] == -1
    assert run(places, tmp_path, "good", limit=59)["methods"]["good"]["cas"] >= 0


def test_what_cannot_be_measured_is_one_sentence(places, tmp_path):
    odd = fill(tmp_path / "odd", 4, 0)
    (odd / "dark").rename(odd / "gloomy")
    with pytest.raises(UserError, match="in no folder of a class: dark, light, striped"):
        run(places | {"odd": odd}, tmp_path / "a", "odd")
    flat = tmp_path / "flat"
    for number in range(30):
        arrays.write(flat / f"{number}.png", np.full((28, 28, 1), number, np.uint8))
    with pytest.raises(UserError, match="has 0 classes"):
        run(places | {"data": flat}, tmp_path / "b", "good")
    mixed = fill(tmp_path / "mixed", 2, 0)
    arrays.write(mixed / "dark" / "000.png", np.zeros((14, 14, 1), np.uint8))
    with pytest.raises(UserError, match="several sizes"):
        run(places | {"mixed": mixed}, tmp_path / "c", "mixed")


def test_the_command_refuses_what_it_would_not_do(places, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "check_needs", lambda protocol, given: None)
    for options, message in (
        ({"shard": Shard(0, 2), "images": {"good": places["good"]}}, "not by --shard"),
        ({"images": {"a/b": places["good"]}}, "cannot be called 'a/b'"),
        ({"images": {labelled_sets.REAL: places["good"]}}, "cannot be called 'real training"),
    ):
        found = Options(data=str(places["data"]), classifier=Network(), **options)
        with pytest.raises(UserError, match=message):
            runs.run_labelled(FASHION, tmp_path, found)


@pytest.mark.parametrize("missing", ["--data", "--images", "--classifier"])
def test_the_command_says_what_it_needs(places, tmp_path, monkeypatch, capsys, missing):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    words = {
        "--data": str(places["data"]),
        "--images": f"good={places['good']}",
        "--classifier": str(tmp_path / "no.safetensors"),
    }
    given = [f"{flag}={value}" for flag, value in words.items() if flag != missing]
    assert cli.main(["evaluate", "--protocol=fashion", f"--output={tmp_path / 'out'}", *given]) == 2
    error = capsys.readouterr().err
    assert missing in error or "needs --workdir" in error
    assert error.count("\n") == 1
