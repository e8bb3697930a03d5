"""`sr3 prepare fashion` by the command line, on a small package with the real one's names."""

import gzip
import hashlib
import json
import struct

import numpy as np
import pytest

from sr3_jax import cli
from sr3_jax import config as config_lib
from sr3_jax.data.records import Records
from sr3_jax.data.sources import open_source
from sr3_jax.datasets import fashion
from tests.datasets.test_debian_photos import ar, tar

COUNTS = {"train": 70, "t10k": 9}


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def images(name):
    rng = np.random.default_rng(len(name))
    pixels = rng.integers(0, 256, (COUNTS[name], 28, 28), np.uint8)
    return pixels, (np.arange(COUNTS[name]) % 10).astype(np.uint8)


def contents(**others):
    files = {}
    for name in COUNTS:
        pixels, labels = images(name)
        files[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(idx(pixels))
        files[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels))
    return files | {name.replace("_", "-") + "-ubyte.gz": data for name, data in others.items()}


def package(folder, files, name=fashion.PACKAGE):
    control = f"Package: {name}\nVersion: 1-1\n".encode()
    data = {f"./{fashion.FOLDER}/{path}": content for path, content in files.items() if content}
    folder.mkdir(exist_ok=True)
    (folder / f"{fashion.PACKAGE}_1-1_all.deb").write_bytes(
        ar(
            {
                "debian-binary": b"2.0\n",
                "control.tar.xz": tar({"./control": control}),
                "data.tar.xz": tar(data),
            }
        )
    )
    return folder


def run(capsys, tmp_path, *flags):
    code = cli.main(
        ["prepare", "fashion", "--workers=1", f"--output={tmp_path / 'out'}", *map(str, flags)]
    )
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_images_are_kept_to_the_bit_with_their_classes_and_the_test_images_are_held_out(
    tmp_path, capsys, monkeypatch
):
    folder, out = package(tmp_path / "packages", contents()), tmp_path / "out"
    code, text, err = run(capsys, tmp_path, f"--packages={folder}")
    assert code == 0, err
    assert "79 images of 28² in 1 files, 0 dropped" in text
    assert "note: the images in dataset-fashion-mnist 1-1 (79) are not those in version" in text
    for part, name, start in (("train", "train", "train/"), ("eval", "t10k", "test/")):
        records, (pixels, labels) = Records(out, 1, part), images(name)
        assert records.ids == [f"{start}{i:05d}" for i in range(COUNTS[name])]
        assert records.class_names == fashion.CLASSES
        for i in range(len(records)):
            np.testing.assert_array_equal(records[i].pixels[..., 0], pixels[i])
            assert records[i].label == labels[i]
    assert json.loads((out / "prepare.json").read_text())["encoding"] == "raw"
    card = (out / "DATA.md").read_text()
    for line in (
        "Fashion-MNIST: 70 training and 9 test images of clothes and shoes,",
        "    sr3 prepare fashion --output=DIR",
        "| 9 | ankle-boot | 7 |",
    ):
        assert line in card.splitlines()
    assert "MIT" in card

    config = config_lib.base()
    config.data.source, config.data.folder, config.model.image_channels = "records", str(out), 1
    config.data.hr_size, config.data.lr_size = 28, 7
    assert len(open_source(config, "eval")) == COUNTS["t10k"]

    # Complete: nothing is fetched
    monkeypatch.setenv("PATH", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(capsys, tmp_path)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_the_images_that_are_expected_need_no_note(tmp_path, capsys, monkeypatch):
    parts = [images(name) for name in COUNTS]
    data = b"".join(pixels.tobytes() for pixels, _ in parts)
    data += b"".join(labels.tobytes() for _, labels in parts)
    monkeypatch.setattr(fashion, "DIGEST", hashlib.sha256(data).hexdigest()[:16])
    code, out, _ = run(capsys, tmp_path, f"--packages={package(tmp_path / 'packages', contents())}")
    assert (code, "note" in out) == (0, False)
    assert "Note" not in (tmp_path / "out" / "DATA.md").read_text()


ZIPPED = gzip.compress(idx(np.zeros((9, 28, 28), np.uint8)))
DAMAGE = {
    "missing": ({"t10k_images_idx3": b""}, "holds no usr/share/datasets/fashion-mnist/t10k-images"),
    "no gzip": ({"t10k_images_idx3": b"text"}, "t10k-images-idx3-ubyte.gz in"),
    "cut": ({"t10k_images_idx3": ZIPPED[:-9]}, "is damaged"),
    "too short": (
        {"t10k_images_idx3": gzip.compress(gzip.decompress(ZIPPED)[:-1])},
        "it holds 7055 bytes, not 9 × 28 × 28",
    ),
    "another array": ({"t10k_labels_idx1": ZIPPED}, "does not begin like an idx file"),
    "too few labels": (
        {"t10k_labels_idx1": gzip.compress(idx(np.zeros(8, np.uint8)))},
        "the labels of its test images (8 for 9)",
    ),
    "an eleventh class": (
        {"t10k_labels_idx1": gzip.compress(idx(np.full(9, 10, np.uint8)))},
        "not one for each, below 10",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_package_is_named_and_nothing_is_written(tmp_path, capsys, kind):
    others, message = DAMAGE[kind]
    folder = package(tmp_path / "packages", contents(**others))
    code, _, err = run(capsys, tmp_path, f"--packages={folder}")
    assert (code, err.count("sr3: "), "Traceback" in err) == (2, 1, False)
    assert message in err
    assert ".deb" in err
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(tmp_path, capsys, monkeypatch):
    folder = package(tmp_path / "packages", contents(), name="another")
    assert "is the package another, not" in run(capsys, tmp_path, f"--packages={folder}")[2]
    package(folder, contents())
    for flags, message in (
        (["--tiles=1"], "--tiles is for large images"),
        (["--detail=1"], "--detail is for --tiles"),
        (["--size=64"], "is 28×28, smaller than 64"),
    ):
        code, _, err = run(capsys, tmp_path, f"--packages={folder}", *flags)
        assert (code, err.count("sr3: ")) == (2, 1)
        assert message in err
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run(capsys, tmp_path, f"--output={tmp_path / 'other'}")
    assert code == 2
    for words in ("there is no apt-get here to fetch Fashion-MNIST", fashion.PACKAGE, "--packages"):
        assert words in err
