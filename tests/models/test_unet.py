"""The whole network, tiny. Its shapes are traced, not run; where it runs, all weights are random: a new one outputs zeros."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.models import UNet

TINY = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "out_channels": 3, "size": 8}


def inputs(size=8, batch=2, channels=3):
    rng = np.random.default_rng(0)
    condition, y_t = (jnp.asarray(rng.normal(size=(batch, size, size, channels)), jnp.float32) for _ in range(2))
    return condition, y_t, jnp.linspace(0.2, 0.9, batch)


def shapes(model, *args):
    """Parameters and output of a new network, as shapes."""
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), *args)
    return variables["params"], output


def random_params(model, *args):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes(model, *args)[0])


def names(params):
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(params)]


VARIANTS = {
    "as in the paper": {},
    "bfloat16": {"dtype": jnp.bfloat16},
    "plain resampling": {"resample": "plain"},
    "scale and shift": {"gamma_injection": "scale_shift"},
    "scale and shift in bfloat16": {"gamma_injection": "scale_shift", "dtype": jnp.bfloat16},
    "two heads": {"head_channels": 8},
    "unscaled skips": {"rescale_skip": False},
    "sqrt_gamma": {"gamma_embedding": "sqrt_gamma"},
    "folded pixels": {"space_to_depth": 2, "attention": (2,)},
    "grey": {"out_channels": 1},
    "recomputed": {"remat": (0, 1), "dropout": 0.1},
    "attention everywhere": {"attention": (8, 4)},
    "three levels": {"multipliers": (1, 1, 2), "blocks": 2},
    "odd channels": {"channels": 12, "multipliers": (1, 3)},
}


@pytest.mark.fast
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_outputs_a_float32_image_from_float32_parameters(fields):
    model = UNet(**(TINY | fields))
    params, output = shapes(model, *inputs(channels=model.out_channels))
    assert output.shape == (2, 8, 8, model.out_channels)
    assert output.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.fast
def test_options_change_the_parameters_that_they_name_and_no_others():
    def layers(**fields):
        return set(names(shapes(UNet(**(TINY | fields)), *inputs())[0]))

    base = layers()
    assert layers(dtype=jnp.bfloat16) == layers(head_channels=8) == layers(remat=(0, 1)) == layers(dropout=0.5) == base
    assert {name.split("/")[0] for name in base ^ layers(resample="plain")} == {"down_0_resample", "up_1_resample"}
    assert {name.split("/")[0] for name in base - layers(attention=())} == {"down_1_0_attention"} | {
        f"up_1_{i}_attention" for i in range(2)
    }


@pytest.mark.fast
def test_the_regression_network_takes_the_condition_alone_and_knows_no_gamma():
    model = UNet(**(TINY | {"gamma_embedding": "none"}))
    params, output = shapes(model, inputs()[0])
    assert output.shape == (2, 8, 8, 3)
    assert not [name for name in names(params) if "embedding" in name]
    assert [name for name in names(shapes(UNet(**TINY), *inputs())[0]) if "embedding" in name]


@pytest.mark.fast
@pytest.mark.parametrize("size", [(8, 8), (16, 16), (4, 10)])
def test_any_size_that_the_levels_divide_will_do_with_the_same_parameters(size):
    model = UNet(**TINY)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    params, output = shapes(model, image, image, jax.ShapeDtypeStruct((1,), jnp.float32))
    assert output.shape == (1, *size, 3)
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes(model, *inputs())[0])


@functools.cache
def tiny():
    """(random parameters, the compiled network)."""
    model = UNet(**TINY)
    return random_params(model, *inputs()), jax.jit(lambda params, *args: model.apply({"params": params}, *args))


def test_a_new_network_outputs_zeros():
    params, network = tiny()
    new_out = jax.jit(lambda key: UNet(**TINY).init(key, *inputs())["params"]["out"])(jax.random.key(0))
    assert np.abs(network(params, *inputs())).min() > 0
    np.testing.assert_array_equal(network(params | {"out": new_out}, *inputs()), 0)


def test_the_output_depends_on_condition_noisy_image_and_level_of_its_own_image_only():
    params, network = tiny()
    before = network(params, *inputs())
    for i in range(3):
        changed = list(inputs())
        changed[i] = changed[i].at[1].multiply(0.7)
        difference = np.abs(network(params, *changed) - before).max((1, 2, 3))
        assert difference[0] < 1e-6
        assert difference[1] > 1e-3


def test_bfloat16_computes_the_same_network_roughly():
    params, network = tiny()
    full, half = network(params, *inputs()), jax.jit(UNet(**TINY, dtype=jnp.bfloat16).apply)({"params": params}, *inputs())
    assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max()


def test_recomputing_activations_changes_neither_output_nor_gradient():
    fields = TINY | {"multipliers": (1,), "attention": ()}
    params = random_params(UNet(**fields), *inputs())

    def loss(model):
        return lambda params: jnp.mean(model.apply({"params": params}, *inputs()) ** 2)

    plain, remat = loss(UNet(**fields)), loss(UNet(**fields, remat=(0,)))
    assert "remat" in str(jax.make_jaxpr(remat)(params))
    assert "remat" not in str(jax.make_jaxpr(plain)(params))
    (value, gradient), (value_again, gradient_again) = (jax.jit(jax.value_and_grad(f))(params) for f in (plain, remat))
    np.testing.assert_allclose(value_again, value, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest), gradient, gradient_again)


def test_dropout_acts_in_training_only():
    model = UNet(**TINY, dropout=0.5)
    params, network = tiny()

    @jax.jit
    def train(seed):
        return model.apply({"params": params}, *inputs(), train=True, rngs={"dropout": jax.random.key(seed)})

    without = network(params, *inputs())
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, *inputs()), without, atol=1e-6)
    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3
    assert np.abs(train(0) - without).max() > 1e-3
