"""`sr3 overfit`: whether the loss of one small batch falls, and below what."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sr3_jax import config as config_lib
from sr3_jax.training.overfit import Outcome, overfit

ORL = Path(__file__).parents[2] / "configs" / "orl_16_64.py"


@pytest.fixture(autouse=True)
def _optax_promotes():
    """Adam multiplies its step count, an integer, with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def tiny_config(objective, goal, steps):
    config = config_lib.base()
    config.objective = objective
    config.data.hr_size, config.data.lr_size = 16, 8
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention = 8, (1,), 1, ()
    model.image_channels, model.space_to_depth = 1, 2
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.2
    config.train.overfit_loss, config.train.overfit_steps, config.train.overfit_batch = (
        goal,
        steps,
        2,
    )
    config_lib.validate(config)
    return config


@pytest.mark.fast
def test_the_goal_is_reached_only_below_it():
    assert Outcome(1.0, 0.49, 0.5).reached
    assert not Outcome(1.0, 0.5, 0.5).reached
    assert not Outcome(1.0, float("nan"), 0.5).reached


def test_enough_steps_on_one_batch_reach_the_goal():
    outcome = overfit(tiny_config("regression", 0.5, 200))
    assert outcome.goal == pytest.approx(0.5 * outcome.before)
    assert outcome.reached


def test_sr3_too_starts_at_the_size_of_its_target_and_one_step_is_not_enough():
    outcome = overfit(tiny_config("sr3", 0.5, 1))
    assert outcome.before == pytest.approx(0.8, abs=0.4)  # L1 of v, about √(2 / π)
    assert np.isfinite(outcome.after)
    assert not outcome.reached


@pytest.mark.slow
def test_the_config_of_the_demo_overfits():
    done = subprocess.run(
        [sys.executable, "-m", "sr3_jax", "overfit", f"--config={ORL}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reached" in done.stdout
