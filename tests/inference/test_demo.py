"""`sr3 demo`: what `make demo` shows."""

import numpy as np
import pytest
from PIL import Image

from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.inference import demo
from sr3_jax.inference.upscaler import Upscaler


def test_faces_photographs_and_an_image_of_the_users_come_out_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    mine = np.dstack([rng.integers(0, 256, (20, 30, 3)), np.full((20, 30), 200)]).astype(np.uint8)
    Image.fromarray(mine).save(tmp_path / "mine.png")
    written = demo.run(tmp_path / "out", tmp_path / "mine.png")
    assert sorted(path.name for path in written) == sorted(
        path.name for path in (tmp_path / "out").iterdir()
    )
    picture = arrays.read(written[0], 3).pixels
    assert picture.shape == (24 + 5 * 256, 4 * 256, 3)
    truth = arrays.to_pillow(picture[24:280, 768:]).resize((64, 64), Image.Resampling.NEAREST)
    face = np.asarray(truth)[..., :1]
    made = np.asarray(
        arrays.to_pillow(picture[24:280, 512:768]).resize((64, 64), Image.Resampling.NEAREST)
    )[..., :1]
    blurred = np.asarray(
        arrays.to_pillow(picture[24:280, 256:512]).resize((64, 64), Image.Resampling.NEAREST)
    )[..., :1]
    assert (
        np.square(made.astype(float) - face).mean() < np.square(blurred.astype(float) - face).mean()
    )
    yours = np.asarray(Image.open(tmp_path / "out" / "yours.png"))
    np.testing.assert_array_equal(yours, Upscaler.load("photos-4x")(mine, name="mine.png"))
    assert arrays.read(tmp_path / "out" / "compare.png", 3).pixels.shape[1] == 2 * 384


@pytest.mark.fast
def test_what_is_there_stays_and_what_cannot_be_read_is_said_first(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="out is not empty"):
        demo.run(tmp_path / "out")
    with pytest.raises(UserError, match=r"none\.png"):
        demo.run(tmp_path / "new", tmp_path / "none.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
