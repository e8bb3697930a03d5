"""`sr3 check-data` reads everything and shows what the network will see.

It says what would be dropped, and why.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from sr3_jax import config as config_lib
from sr3_jax.data.check import check
from sr3_jax.data.source import DataError
from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.tasks import build_task, operations


def orl_config():
    config = config_lib.base()
    config.data.hr_size, config.data.lr_size, config.model.image_channels = 32, 16, 1
    config_lib.validate(config)
    return config


@pytest.fixture
def folder_config(tmp_path):
    config = config_lib.base()
    config.data.source, config.data.hr_size, config.data.lr_size = "folder", 32, 16
    for field in ("folder", "eval_folder"):
        config.data[field] = str(tmp_path / field)
        (tmp_path / field).mkdir()
    photograph = photographs.astronaut()
    for i in range(4):
        arrays.write(tmp_path / "folder" / f"{i}.png", photograph[60 * i : 60 * i + 40 + i, :50])
    arrays.write(tmp_path / "eval_folder" / "e.png", photograph[:40, :40])
    return config


def report(config, output):
    """The lines before an error, if any, and the error."""
    lines = []
    try:
        lines.extend(check(config, output))  # extend keeps what came before the exception
    except DataError as error:
        return lines, str(error)
    return lines, None


def test_orl_is_three_hundred_and_a_hundred_images_and_the_sheet_shows_lr_conditioning_and_hr(
    tmp_path,
):
    lines, error = report(orl_config(), tmp_path / "sheet.png")
    assert error is None
    assert lines[0] == "training: 300 images usable, 0 dropped"
    assert lines[1] == "  width 92 to 92 (median 92), height 112 to 112 (median 112)"
    assert lines[2].startswith("  40 classes: s1 10, s2 10, ")
    assert lines[3] == "held-out: 100 images usable, 0 dropped"
    sheet = arrays.read(tmp_path / "sheet.png", 1).pixels
    assert sheet.shape == (24 + 8 * 128, 3 * 128, 1)
    lr, condition, hr = (sheet[24:152, 128 * i : 128 * i + 128] for i in range(3))
    # The pixels are shown enlarged
    lr, condition, hr = lr[4::8, 4::8], condition[2::4, 2::4], hr[2::4, 2::4]
    assert (lr.shape, condition.shape, hr.shape) == ((16, 16, 1), (32, 32, 1), (32, 32, 1))
    task = build_task(orl_config())
    floats = task.corrupt(operations.to_float(jnp.asarray(hr[None]))).image
    np.testing.assert_array_equal(operations.to_uint8(floats)[0], lr)
    np.testing.assert_array_equal(operations.to_uint8(task.condition(floats))[0], condition)


@pytest.mark.fast
def test_sizes_and_conversions_are_counted(folder_config, tmp_path):
    arrays.write(tmp_path / "folder" / "grey.png", np.zeros((32, 200, 1), np.uint8))
    Image.new("RGBA", (33, 33)).save(tmp_path / "folder" / "clear.png")
    lines, error = report(folder_config, tmp_path / "sheet.png")
    assert error is None
    assert lines[0] == "training: 6 images usable, 0 dropped"
    assert lines[1] == "  width 33 to 200 (median 50), height 32 to 43 (median 40)"
    assert {"  1 × grey repeated in three channels", "  1 × alpha flattened onto white"} <= set(
        lines
    )
    assert arrays.read_size(tmp_path / "sheet.png") == (3 * 128, 24 + 6 * 128)


def spoil(folder):
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "fake.jpg").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    arrays.write(folder / "small.png", np.zeros((31, 90, 3), np.uint8))


BAD = {
    "cut.png": "cannot be decoded",
    "fake.jpg": "not an image",
    "empty.png": "empty",
    "small.png": "90×31, smaller than",
}


@pytest.mark.fast
def test_bad_files_are_named_with_a_reason_and_more_than_the_budget_is_an_error_after_the_report(
    folder_config, tmp_path
):
    spoil(tmp_path / "folder")
    lines, error = report(folder_config, tmp_path / "sheet.png")
    assert lines[0] == "training: 4 images usable, 4 dropped"
    for name, reason in BAD.items():
        assert any(line.startswith(f"  dropped: {name} ") and reason in line for line in lines), (
            name
        )
    assert "held-out: 1 images usable, 0 dropped" in lines
    assert "4 of 8 images cannot be used, above data.max_bad_fraction = 0.01" in error
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.fast
def test_bad_files_within_the_budget_are_no_error(folder_config, tmp_path):
    spoil(tmp_path / "folder")
    folder_config.data.max_bad_fraction = 0.5
    assert report(folder_config, tmp_path / "sheet.png")[1] is None


@pytest.mark.fast
def test_a_set_without_a_usable_image_is_an_error_even_if_all_may_be_bad(folder_config, tmp_path):
    folder_config.data.max_bad_fraction = 1.0
    folder_config.data.hr_size = 64
    lines, error = report(folder_config, tmp_path / "sheet.png")
    assert lines[0] == "training: 0 images usable, 4 dropped"
    assert "none of 4 images can be used" in error
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.fast
def test_small_images_of_a_set_that_does_not_know_its_sizes_are_dropped_too(tmp_path):
    config = orl_config()
    config.data.hr_size = 96  # faces are 92 wide; only reading them tells
    lines, error = report(config, tmp_path / "sheet.png")
    assert lines[0] == "training: 0 images usable, 300 dropped"
    assert "  … and 280 more" in lines
    assert "none of 300 images can be used" in error


@pytest.mark.fast
def test_a_sheet_that_cannot_be_written_is_refused_before_the_data_are_read(tmp_path):
    config = orl_config()
    config.data.source, config.data.folder = "folder", str(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"--output=.*sheet\.foo: no image format has the suffix '\.foo'; use \.png"
    ):
        list(check(config, tmp_path / "sheet.foo"))
