"""What the protocols of damaged photographs do to them."""

import numpy as np
import pytest
from skimage import data

from sr3_jax.evaluation import damage
from sr3_jax.evaluation.damage import LEVELS, Recipe, damaged, recipe

pytestmark = pytest.mark.fast
HR = data.astronaut()[:256, 100:356]
NOTHING = Recipe(1e-3, 0.0, False, "box", 100, "4:4:4", 0, 0)


@pytest.mark.parametrize("level", LEVELS)
def test_an_images_recipe_lies_in_its_level_and_depends_on_its_id_alone(level):
    ranges = LEVELS[level]
    found = [recipe(level, f"image/{i}") for i in range(200)]
    assert found == [recipe(level, f"image/{i}") for i in range(200)]
    assert len(set(found)) == 200
    for name in ("blur", "noise", "quality"):
        low, high = getattr(ranges, name)
        values = [getattr(one, name) for one in found]
        assert low - 0.05 <= min(values) < low + 0.2 * (high - low) + 0.05
        assert high - 0.2 * (high - low) - 0.05 < max(values) <= high + 0.05
    assert {one.method for one in found} == set(damage.METHODS)
    assert {one.subsampling for one in found} == {"4:2:0", "4:4:4"}
    assert all(bool(one.before) == bool(ranges.before) for one in found)


def test_a_recipe_of_almost_nothing_is_the_mean_of_the_pixels():
    lr = damaged(HR, 4, NOTHING)
    wanted = HR.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert lr.dtype == np.uint8
    assert lr.shape == (64, 64, 3)
    assert np.abs(lr - wanted).mean() < 1.5  # JPEG of quality 100


@pytest.mark.parametrize(
    "change", [{"blur": 1.0}, {"noise": 8.0}, {"quality": 40}, {"before": 40}], ids=str
)
def test_each_flaw_takes_the_image_further_away(change):
    clean, bad = damaged(HR, 4, NOTHING), damaged(HR, 4, NOTHING._replace(**change))
    assert np.abs(bad.astype(int) - clean).mean() > 2


def test_the_levels_are_in_order():
    clean = damaged(HR, 4, NOTHING).astype(int)
    errors = [
        np.mean([np.square(damaged(HR, 4, recipe(level, str(i))) - clean).mean() for i in range(8)])
        for level in LEVELS
    ]
    assert errors == sorted(errors)
    assert errors[0] < 60
