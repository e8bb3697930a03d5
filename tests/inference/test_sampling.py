"""How images are drawn is one value, checked once, with one sentence for what cannot be had."""

import re

import pytest

from sr3_jax.errors import UserError
from sr3_jax.inference.sampling import Sampling
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint(noise=10.0)


def test_equal_choices_are_equal_and_may_be_a_key():
    one, other = (
        Sampling(4, signals={"noise": 2.0, "blur": 1.0}),
        Sampling(4, signals=(("blur", 1.0), ("noise", 2.0))),
    )
    assert one == other
    assert {one: 1}[other] == 1
    assert one != Sampling(4)


def test_options_replace_fields_and_add_signals_and_none_leaves_them_out():
    base = Sampling(steps=4, signals={"noise": 2.0})
    assert base.with_options({"seed": 3, "blur": 1.0}) == Sampling(
        4, seed=3, signals={"noise": 2.0, "blur": 1.0}
    )
    assert base.with_options({"noise": None, "steps": None}) == Sampling()
    assert base.with_options({"noise": 0.0}).told == {"noise": 0.0}
    assert base.with_options({}) == base


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"sampler": "euler"}, "sampler = 'euler' can be ancestral, ddim"),
        ({"seed": -1}, "seed = -1 must lie between 0 and 2147483647"),
        ({"scale": 0.9}, "scale = 0.9 must lie between 1"),
        ({"noise": 11.0}, "noise = 11 must lie between 0 and 10, which tiny was trained with"),
        ({"blur": 1.0}, "tiny was not trained with task.blur and task.tell_blur"),
        (
            {"setps": 4},
            "setps is not known; there are steps, sampler, seed, sample, match_input, scale, "
            "guidance, guidance_interval, blur, noise",
        ),
    ],
)
def test_what_cannot_be_had_is_one_sentence(checkpoint, options, message):
    with pytest.raises(UserError, match=message):
        Sampling().with_options(options).check(checkpoint)


def test_what_can_be_had_passes(checkpoint):
    Sampling(steps=3, sampler="heun", seed=2**31 - 1, scale=64, signals={"noise": 10.0}).check(
        checkpoint
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", None, "seed = None must be a whole number"),
        ("seed", 1.5, "seed = 1.5 must be a whole number"),
        ("steps", True, "steps = True must be a whole number"),
        ("scale", "2", "scale = '2' must be a number"),
    ],
)
def test_what_is_no_number_is_one_sentence(checkpoint, field, value, message):
    sampling = Sampling()
    object.__setattr__(sampling, field, value)  # the tests' own check of types is stricter
    with pytest.raises(UserError, match=re.escape(message)):
        sampling.check(checkpoint)
