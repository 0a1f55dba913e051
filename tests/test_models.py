import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcifar import models
from jaxcifar.models import functional, layers
from jaxcifar.spec import ConfigError


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet1", {}, "there is no model 'resnet1'; did you mean resnet18"),
        ("resnet18", {"stem": "cifr"}, "stem='cifr' is not valid: it must be one of 'cifar'"),
        ("resnet18", {"head": "mpl"}, "one of 'linear', 'mlp'"),
        ("resnet18", {"head": "mlp", "head_hidden": (8,)}, "one more entry than"),
        ("simple_cnn", {"stem": "imagenet"}, "no parameter 'stem'; it has width, dropout"),
        (
            "simple_cnn",
            {"dropout": 1.0},
            r"dropout=1.0 is not valid: it must be a number in \[0, 1\)",
        ),
        ("wide_resnet", {"depth": 27}, r"depth=27 is not valid: it must be 6n \+ 4"),
    ],
)
def test_invalid_arguments_raise(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        models.create(name, num_classes=10, rngs=nnx.Rngs(0), **arguments)


def test_other_models_arguments_may_have_their_default():
    """So that a loop over models can pass them all."""
    model = nnx.eval_shape(
        lambda: models.create(
            "simple_cnn", num_classes=10, rngs=nnx.Rngs(0), stem="cifar", head="linear"
        )
    )
    assert model.conv1.kernel.shape[-1] == 32


def test_none_means_the_default():
    defaults = {"width": None, "dropout": None}
    model = nnx.eval_shape(
        lambda: models.create("simple_cnn", num_classes=10, rngs=nnx.Rngs(0), **defaults)
    )
    assert model.dropout.rate == 0.5
    assert model.conv1.kernel.shape[-1] == 32


def test_simple_cnn_layers_match_the_study():
    model = models.create("simple_cnn", num_classes=100, rngs=nnx.Rngs(0))
    params = functional.flatten(functional.split(model)[1])
    shapes = {name: leaf.shape for name, leaf in params.items()}
    assert shapes["conv1.kernel"] == (3, 3, 3, 32)
    assert shapes["conv3.kernel"] == (3, 3, 64, 128)
    assert shapes["fc1.kernel"] == (2048, 512)
    assert shapes["fc2.kernel"] == (512, 100)
    assert sum(np.prod(shape) for shape in shapes.values()) == 1_193_636


def test_initialization_matches_pytorch():
    params = functional.split(models.create("simple_cnn", num_classes=100, rngs=nnx.Rngs(0)))[1]
    for name, fan_in in (("conv1", 27), ("conv3", 9 * 64), ("fc1", 2048), ("fc2", 512)):
        bound = fan_in**-0.5
        for values in params[name].values():
            values = np.asarray(values).ravel()
            assert abs(values).max() <= bound
            # U(-b, b) has mean 0 and standard deviation b / sqrt(3); five standard errors
            assert abs(values.mean()) < 5 * bound / 3**0.5 / values.size**0.5
            assert abs(values.std() / bound - 3**-0.5) < 5 * 0.27 / values.size**0.5


@pytest.mark.numerics
def test_max_pool_matches_the_windowed_maximum_forward_and_backward():
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))

    def windowed(x):
        return nnx.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_array_equal(layers.max_pool_2x2(x), windowed(x))
    ours, theirs = (
        jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())(x)
        for pool in (layers.max_pool_2x2, windowed)
    )
    np.testing.assert_allclose(ours, theirs)


def test_max_pool_ties_send_the_gradient_to_the_first_element():
    gradient = jax.grad(lambda x: layers.max_pool_2x2(x).sum())
    np.testing.assert_array_equal(
        gradient(jnp.ones((1, 2, 4, 1)))[0, :, :, 0], [[1, 0] * 2, [0] * 4]
    )
    last = jnp.array([[0.0, 1.0], [2.0, 2.0]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(gradient(last)[0, :, :, 0], [[0, 0], [1, 0]])


def test_dropout_acts_in_training_only_and_follows_its_key():
    model = models.create("simple_cnn", num_classes=10, width=4, rngs=nnx.Rngs(0))
    graphdefs, params, stats = functional.split(model)
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    train = jax.jit(lambda key: functional.apply_train(graphdefs, params, stats, images, key)[0])
    first, again, other = (train(jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    model.eval()
    called, applied = jax.jit(
        lambda: (model(images), functional.apply_eval(graphdefs, params, stats, images))
    )()
    np.testing.assert_array_equal(called, applied)
    assert called.dtype == jnp.float32


def plain_batch_norm(x, scale, bias, relu):
    axes = tuple(range(x.ndim - 1))
    y = (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5) * scale + bias
    return jnp.maximum(y, 0) if relu else y


@pytest.mark.numerics
@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 4, 5), (16, 16, 32, 5)])
def test_batch_norm_and_its_gradient_match_its_formula(shape):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, weight = rng.normal(3, 2, (2, *shape))
        scale, bias = rng.normal(size=(2, 5))

        def value_and_gradients(function):
            weighted = jax.value_and_grad(
                lambda *args: (function(*args) * weight).sum(), argnums=(0, 1, 2)
            )
            return weighted(x, scale, bias)

        @jax.jit
        def results():
            ours, theirs = {}, {}
            for relu in (False, True):
                plain = value_and_gradients(functools.partial(plain_batch_norm, relu=relu))
                for passes, shift in (("two passes", None), ("one pass", np.full(5, 2.0))):
                    theirs[f"{passes}, relu={relu}"] = plain
                    ours[f"{passes}, relu={relu}"] = value_and_gradients(
                        lambda *args, shift=shift, relu=relu: layers._batch_norm(
                            *args, shift, 1e-5, relu
                        )[0]
                    )
            return ours, theirs

        ours, theirs = results()
        for case, tensors in ours.items():
            for a, b in zip(jax.tree.leaves(tensors), jax.tree.leaves(theirs[case]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=case)


@pytest.mark.numerics
def test_batch_norm_is_exact_far_from_zero_and_statistics_match_pytorch():
    """Mean 1000, standard deviation 1: as a difference of squares the variance would be lost."""
    x = np.random.default_rng(0).normal(1000, 1, (64, 3)).astype(np.float32)
    norm = layers.BatchNorm(3)
    y = norm(x)
    exact = x.astype(np.float64)
    centered = exact - exact.mean(0)
    np.testing.assert_allclose(y, centered / np.sqrt(exact.var(0) + 1e-5), atol=2e-4)
    np.testing.assert_allclose(norm.mean[...], 0.1 * exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-5)
    norm.eval()
    np.testing.assert_allclose(
        norm(x), (exact - norm.mean[...]) / np.sqrt(norm.var[...] + 1e-5), rtol=1e-5
    )


@pytest.mark.numerics
def test_batch_norm_of_bfloat16_matches_that_of_float32():
    """The same bfloat16 activations: to bfloat16's rounding, 2^-8 of a value; its statistics, which
    come from one pass around the running mean, to 1e-5.
    """
    x = np.random.default_rng(0).normal(3, 1, (64, 8, 8, 4)).astype(jnp.bfloat16)
    wide, narrow = layers.BatchNorm(4), layers.BatchNorm(4, dtype=jnp.bfloat16)
    for _ in range(2):
        expected, actual = wide(x.astype(np.float32), relu=True), narrow(x, relu=True)
        assert actual.dtype == jnp.bfloat16
        np.testing.assert_allclose(actual.astype(np.float32), expected, rtol=2**-8, atol=1e-6)
        np.testing.assert_allclose(narrow.mean[...], wide.mean[...], rtol=1e-5)
        np.testing.assert_allclose(narrow.var[...], wide.var[...], rtol=1e-5)


def test_batch_norm_takes_a_single_row_and_half_precision():
    norm = layers.BatchNorm(3, dtype=jnp.bfloat16)
    y = norm(jnp.ones((1, 3), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_allclose(norm.var[...], 0.9)
    assert norm.var[...].dtype == jnp.float32


@pytest.mark.numerics
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_convolutions_of_few_pixels_are_the_same(size):
    """On a CPU those with small results are matrix products."""
    images = jax.random.normal(jax.random.key(1), (2, size, size, 8))
    kernels_and_strides = ((1, 1), (1, 2), (3, 1), (3, 2), (7, 2))
    ours, plain = (
        [
            layers.conv(8, 5, size=kernel, stride=stride, rngs=nnx.Rngs(0), dtype=jnp.float32)
            for kernel, stride in kernels_and_strides
        ]
        for _ in range(2)
    )
    for conv in plain:
        conv.conv_general_dilated = jax.lax.conv_general_dilated
    actual, expected = jax.jit(
        lambda images: [[conv(images) for conv in convs] for convs in (ours, plain)]
    )(images)
    for case, a, b in zip(kernels_and_strides, actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=f"kernel, stride: {case}")


@pytest.mark.parametrize("image_size", [24, 64])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("simple_cnn", {"width": 4}),
        ("resnet18", {"width": 8}),
        ("resnet18", {"width": 8, "stem": "imagenet"}),
        ("wide_resnet", {"depth": 10, "widen_factor": 1}),
    ],
)
def test_other_image_sizes(name, arguments, image_size):
    def logits():
        model = models.create(
            name, num_classes=10, rngs=nnx.Rngs(0), image_size=image_size, **arguments
        )
        return model(jnp.zeros((2, image_size, image_size, 3)), rngs=nnx.Rngs(1))

    assert nnx.eval_shape(logits).shape == (2, 10)


def test_simple_cnn_needs_a_multiple_of_8():
    with pytest.raises(ConfigError, match="cannot take images of 36 pixels: it halves them three"):
        models.create("simple_cnn", num_classes=10, rngs=nnx.Rngs(0), image_size=36)


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet18", {"width": 8}), ("wide_resnet", {"depth": 10, "widen_factor": 1})],
)
def test_logits_in_bfloat16_are_those_of_single_operations(name, options):
    """To bfloat16's rounding: compiled as a whole, XLA for CPUs once returned NaN."""
    rng = np.random.default_rng(0)

    def draw(shape):  # much faster than to initialize
        largest = np.prod(shape[:-1], initial=1.0) ** -0.5
        return rng.uniform(0.1 if len(shape) == 1 else -largest, largest, shape)

    model = nnx.eval_shape(
        lambda: models.create(name, num_classes=10, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, **options)
    )
    state = nnx.to_pure_dict(nnx.state(model))
    nnx.update(model, jax.tree.map(lambda x: jnp.asarray(draw(x.shape), x.dtype), state))
    model.eval()
    x = rng.normal(size=(40, 32, 32, 3)).astype(np.float32)
    expected = model(x)
    actual = nnx.jit(lambda model, x: model(x))(model, x)
    np.testing.assert_allclose(actual, expected, atol=2**-6 * np.abs(expected).max())
