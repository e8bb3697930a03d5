"""The whole network, tiny.

Its shapes are traced, not run; where it runs, all weights are random: a new one outputs zeros.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import config
from sr3_jax.models import UNet, build_model
from sr3_jax.models.blocks import GammaEmbedding, ResBlock, SelfAttention, Told
from sr3_jax.models.dropout import Dropout

TINY = {
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (4,),
    "out_channels": 3,
    "size": 8,
}
# Three blocks: quick to compile
FEWER_BLOCKS = TINY | {"multipliers": (1,), "blocks": 0, "attention": ()}


def inputs(size=8, batch=2, channels=3):
    rng = np.random.default_rng(0)
    condition, y_t = (
        jnp.asarray(rng.normal(size=(batch, size, size, channels)), jnp.float32) for _ in range(2)
    )
    return condition, y_t, jnp.linspace(0.2, 0.9, batch)


def shapes(model, *args):
    """Parameters and output of a new network, as shapes."""
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), *args)
    return variables["params"], output


def random_params(model, *args):
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        shapes(model, *args)[0],
    )


def names(params):
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]


VARIANTS = {
    "as in the paper": {},
    "plain resampling": {"resample": "plain"},
    "scale and shift": {"gamma_injection": "scale_shift"},
    "two heads": {"head_channels": 8},
    "unscaled skips": {"rescale_skip": False},
    "sqrt_gamma": {"gamma_embedding": "sqrt_gamma"},
    "folded pixels": {"space_to_depth": 2, "attention": (2,)},
    "grey": {"out_channels": 1},
    "recomputed": {"remat": (0, 1), "dropout": 0.1},
    "attention everywhere": {"attention": (8, 4)},
    "convolutions alone": {"attention": (), "middle_attention": False},
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


@pytest.fixture
def bfloat16():
    """The dtype, without strict promotion.

    Flax's GroupNorm and JAX's attention promote it themselves, which strict promotion forbids.
    """
    with jax.numpy_dtype_promotion("standard"):
        yield jnp.bfloat16


@pytest.mark.fast
@pytest.mark.parametrize("injection", ["add", "scale_shift"])
def test_bfloat16_stays_bfloat16_from_block_to_block_between_float32_parameters_and_a_float32_image(
    bfloat16, injection
):
    model = UNet(**TINY, dtype=bfloat16, gamma_injection=injection)
    params, output = shapes(model, *inputs())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert output.dtype == jnp.float32

    def features(params):
        blocks = (ResBlock, SelfAttention, GammaEmbedding)
        is_block = lambda module, _: isinstance(module, blocks)  # noqa: E731
        return model.apply(
            {"params": params}, *inputs(), capture_intermediates=is_block, mutable=["intermediates"]
        )[1]

    inside = jax.tree.leaves(jax.eval_shape(features, params))
    assert len(inside) == 15
    assert {leaf.dtype for leaf in inside} == {jnp.dtype(bfloat16)}


@pytest.mark.fast
def test_options_change_the_parameters_that_they_name_and_no_others():
    def layers(**fields):
        return set(names(shapes(UNet(**(TINY | fields)), *inputs())[0]))

    base = layers()
    assert layers(head_channels=8) == layers(remat=(0, 1)) == layers(dropout=0.5) == base
    assert {name.split("/")[0] for name in base ^ layers(resample="plain")} == {
        "down_0_resample",
        "up_1_resample",
    }
    assert {name.split("/")[0] for name in base - layers(attention=())} == {
        "down_1_0_attention"
    } | {f"up_1_{i}_attention" for i in range(2)}


@pytest.mark.fast
def test_the_regression_network_takes_the_condition_alone_and_knows_no_gamma():
    model = UNet(**(TINY | {"gamma_embedding": "none"}))
    params, output = shapes(model, inputs()[0])
    assert output.shape == (2, 8, 8, 3)
    assert not [name for name in names(params) if "embedding" in name]
    assert [name for name in names(shapes(UNet(**TINY), *inputs())[0]) if "embedding" in name]


@pytest.mark.parametrize("regression", [False, True], ids=["sr3", "regression"])
@pytest.mark.parametrize(("flaw", "strong"), [("noise", 9.0), ("blur", 1.5)])
def test_a_flaw_of_the_input_means_nothing_to_a_new_network_and_something_to_a_trained_one(
    regression, flaw, strong
):
    kind = {"gamma_embedding": "none"} if regression else {}
    given = inputs()[:1] if regression else inputs()
    model, without = (
        UNet(**(FEWER_BLOCKS | kind), signals=(Told(flaw),)),
        UNet(**(FEWER_BLOCKS | kind)),
    )
    new = set(names(shapes(model, *given)[0])) - set(names(shapes(without, *given)[0]))
    assert {name.split("/")[0] for name in new if "up_" not in name and "middle" not in name} == {
        f"input_{flaw}_embedding"
    }
    params = random_params(model, *given)
    run = jax.jit(lambda params, sigma: model.apply({"params": params}, *given, told={flaw: sigma}))
    clean, flawed = (run(params, jnp.full(2, sigma)) for sigma in (0.0, strong))
    assert jnp.abs(clean - flawed).max() > 1e-3
    fresh = jax.jit(model.init)(jax.random.key(0), *given)["params"][f"input_{flaw}_embedding"]
    muted = params | {f"input_{flaw}_embedding": fresh}
    np.testing.assert_array_equal(run(muted, jnp.zeros(2)), run(muted, jnp.full(2, strong)))
    np.testing.assert_array_equal(
        model.apply({"params": params}, *given),
        model.apply({"params": params}, *given, told={flaw: jnp.zeros(2)}),
    )


def test_a_signal_that_is_not_known_has_a_vector_of_its_own():
    model = UNet(**FEWER_BLOCKS, signals=(Told("noise", optional=True),))
    params = random_params(model, *inputs())
    run = jax.jit(
        lambda params, value: model.apply(
            {"params": params}, *inputs(), told={"noise": jnp.full(2, value)}
        )
    )
    unknown = run(params, jnp.nan)
    assert jnp.isfinite(unknown).all()
    assert jnp.abs(unknown - run(params, 0.0)).max() > 1e-3
    own = params["input_noise_embedding"]
    other = params | {"input_noise_embedding": own | {"unknown": own["unknown"] + 1}}
    np.testing.assert_array_equal(run(other, 3.0), run(params, 3.0))
    assert jnp.abs(run(other, jnp.nan) - unknown).max() > 1e-3
    gradient = jax.grad(lambda params: run(params, jnp.nan).sum())(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.fast
@pytest.mark.parametrize("size", [(8, 8), (16, 16), (4, 10)])
def test_any_size_that_the_levels_divide_will_do_with_the_same_parameters(size):
    model = UNet(**TINY)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    params, output = shapes(model, image, image, jax.ShapeDtypeStruct((1,), jnp.float32))
    assert output.shape == (1, *size, 3)
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(
        lambda leaf: leaf.shape, shapes(model, *inputs())[0]
    )


@functools.cache
def tiny():
    """(random parameters, the compiled network)."""
    model = UNet(**TINY)
    return random_params(model, *inputs()), jax.jit(
        lambda params, *args: model.apply({"params": params}, *args)
    )


def test_a_new_network_outputs_zeros():
    params, network = tiny()
    new_out = jax.jit(lambda key: UNet(**TINY).init(key, *inputs())["params"]["out"])(
        jax.random.key(0)
    )
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


def test_bfloat16_computes_the_same_network_roughly(bfloat16):
    params = {"params": random_params(UNet(**FEWER_BLOCKS), *inputs())}
    full, half = (
        jax.jit(UNet(**FEWER_BLOCKS, dtype=dtype).apply)(params, *inputs())
        for dtype in (jnp.float32, bfloat16)
    )
    assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max()


def test_recomputing_activations_changes_neither_output_nor_gradient():
    params = random_params(UNet(**FEWER_BLOCKS), *inputs())

    def loss(**fields):
        return lambda params: jnp.mean(
            UNet(**FEWER_BLOCKS, **fields).apply({"params": params}, *inputs()) ** 2
        )

    plain, remat = loss(), loss(remat=(0,))
    assert "remat" in str(jax.make_jaxpr(remat)(params))
    assert "remat" not in str(jax.make_jaxpr(plain)(params))
    (value, gradient), (value_again, gradient_again) = (
        jax.jit(jax.value_and_grad(f))(params) for f in (plain, remat)
    )
    np.testing.assert_allclose(value_again, value, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest),
        gradient,
        gradient_again,
    )


@pytest.mark.fast
@pytest.mark.parametrize("train", [True, False])
def test_every_block_is_told_whether_this_is_training(train):
    told = []

    def listen(call, args, kwargs, context):
        if isinstance(context.module, Dropout) and context.method_name == "__call__":
            told.append(args[-1])
        return call(*args, **kwargs)

    model = UNet(**TINY, dropout=0.5)
    with nn.intercept_methods(listen):
        jax.eval_shape(
            lambda key: model.init({"params": key, "dropout": key}, *inputs(), train=train),
            jax.random.key(0),
        )
    assert told == [train] * 10


def test_dropout_acts_in_training_only():
    without, model = UNet(**FEWER_BLOCKS), UNet(**FEWER_BLOCKS, dropout=0.5)
    params = random_params(model, *inputs())

    def program(model):
        return str(jax.make_jaxpr(model.apply)({"params": params}, *inputs()))

    @jax.jit
    def train(seed):
        return model.apply(
            {"params": params}, *inputs(), train=True, rngs={"dropout": jax.random.key(seed)}
        )

    assert program(model) == program(without)
    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3


@pytest.mark.fast
def test_build_model_hands_over_every_field_of_the_config():
    section = config.base().model
    for field, value in {
        "channels": 24,
        "multipliers": (1, 3),
        "blocks": 1,
        "attention": (4, 8),
        "resample": "plain",
        "rescale_skip": False,
        "dropout": 0.3,
        "head_channels": 8,
        "gamma_embedding": "sqrt_gamma",
        "gamma_injection": "scale_shift",
        "space_to_depth": 2,
        "remat": (1,),
    }.items():
        section[field] = value
        assert getattr(build_model(section, 64), field) == value
    assert build_model(section, 64).size == 64
    section.image_channels, section.dtype = 1, "bfloat16"
    assert build_model(section, 64).out_channels == 1
    assert build_model(section, 64).dtype == jnp.bfloat16
    assert build_model(section, 64, regression=True).gamma_embedding == "none"
