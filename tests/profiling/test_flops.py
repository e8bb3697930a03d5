"""FLOPs counted from a jaxpr."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.profiling import aot
from sr3_jax.profiling.flops import matrix_flops
from tests.tiny import get_config

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "lhs_dilation"),
    [
        (8, 3, 1, 1, 1),
        (8, 1, 1, 0, 1),
        (9, 3, 2, 1, 1),
        (4, 2, 1, 1, 2),
        (5, 4, 1, 2, 2),
        (6, 3, 1, 0, 1),
    ],
)
def test_a_convolution_counts_the_taps_that_meet_pixels(
    size, kernel, stride, padding, lhs_dilation
):
    def conv(x, k):
        return jax.lax.conv_general_dilated(
            x,
            k,
            (stride, stride),
            ((padding, padding),) * 2,
            lhs_dilation=(lhs_dilation,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    out = (((size - 1) * lhs_dilation + 1) + 2 * padding - kernel) // stride + 1
    pixels = set(range(padding, padding + size * lhs_dilation, lhs_dilation))
    line = sum(i * stride + j in pixels for i, j in itertools.product(range(out), range(kernel)))
    assert (
        matrix_flops(conv, jnp.zeros((2, size, size, 3)), jnp.zeros((kernel, kernel, 3, 5)))
        == 2 * 2 * 3 * 5 * line**2
    )


def test_loops_calls_and_batched_products_are_counted():
    def f(a, b):
        def body(x, _):
            return jnp.einsum("bij,jk->bik", x, b), None

        return jax.lax.scan(body, jax.jit(lambda a: a @ b)(a), None, length=5)[0]

    assert matrix_flops(f, jnp.zeros((7, 2, 4)), jnp.zeros((4, 4))) == 6 * 2 * 7 * 2 * 4 * 4


def test_of_branches_by_platform_the_cheapest_counts():
    x = jnp.zeros((4, 4))
    assert (
        matrix_flops(
            lambda x: jax.lax.platform_dependent(x, tpu=lambda x: x @ x, default=lambda x: x), x
        )
        == 0
    )


def test_a_training_step_is_three_forward_passes_but_for_the_gradient_of_the_input():
    config = get_config()
    forward, train = (aot.model_flops(config, what, 1) for what in ("sample", "train"))
    assert 2.8 * forward < train <= 3 * forward
    config.model.remat = (0,)
    assert aot.model_flops(config, "train", 1) == train
    assert aot.model_flops(config, "sample", 10) == 10 * forward


def test_a_student_also_pays_for_its_teachers_steps():
    config = get_config()
    forward, train = (aot.model_flops(config, what, 1) for what in ("sample", "train"))
    config.objective, config.train.teacher, config.train.teacher_steps = "distill", "another", 4
    assert aot.model_flops(config, "train", 1) == train + 4 * forward
    assert aot.residual_bytes(config, 2) > 0


def test_the_count_agrees_with_the_compiler():
    config = get_config()
    method = aot.Method(config)
    image = jnp.zeros((config.train.batch_size, *method.shape))
    params = jax.eval_shape(method.init, jax.random.key(0))
    run = jax.jit(lambda params, *inputs: method.model.apply({"params": params}, *inputs))
    counted = run.lower(params, image, image, image[:, 0, 0, 0]).cost_analysis()["flops"]
    # the compiler counts elementwise work as well: a few per cent in a network of 8 channels
    np.testing.assert_allclose(aot.model_flops(config, "sample", 1), counted, rtol=0.25)
