import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_reference import TOLERANCE, cases, images, run

from jaxcifar import augment
from jaxcifar.spec import ConfigError

pytestmark = pytest.mark.numerics

BLENDS = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_sharpness")


@pytest.mark.parametrize("name", TOLERANCE)
def test_operation_matches_torchvision(name):
    for (which, arguments, theirs), ours in zip(cases(name), run(name), strict=True):
        assert np.abs(ours - theirs).max() <= TOLERANCE[name], (which, arguments)
        assert ours.min() >= 0
        assert ours.max() <= 255.001  # float32's rounding of 255 · 1


@pytest.mark.parametrize("name", [*BLENDS, "adjust_hue", "solarize", "posterize"])
def test_traced_parameters_may_differ_within_a_batch(name):
    chosen = [case for case in cases(name) if case[0] == "square"]
    kind = np.int32 if name == "posterize" else np.float32
    values = np.array([arguments[0] for _, arguments, _ in chosen], kind)
    operation = jax.vmap(getattr(augment, name), (None, 0))
    ours = 255 * np.asarray(jax.jit(operation)(images("square")[0], values))
    for result, (_, arguments, theirs) in zip(ours, chosen, strict=True):
        assert np.abs(result - theirs[0]).max() <= TOLERANCE[name], arguments


@pytest.mark.parametrize("name", BLENDS)
def test_factor_1_is_identity(name):
    image = jax.random.uniform(jax.random.key(0), (16, 16, 3))
    np.testing.assert_array_equal(getattr(augment, name)(image, 1.0), image)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 2)])
def test_small_images_have_no_interior_to_sharpen(size):
    image = jax.random.uniform(jax.random.key(0), (*size, 3))
    sharp, equal = jax.jit(lambda x: (augment.adjust_sharpness(x, 3.0), augment.equalize(x)))(image)
    np.testing.assert_allclose(sharp, image, atol=1e-6)  # of 3 x - 2 x
    np.testing.assert_array_equal(equal, image)


def test_equalize_is_exact_in_large_images():
    levels = np.tile(np.arange(256, dtype=np.float32), 1600).reshape(640, 640) / 255
    image = jnp.asarray(np.stack([levels, levels**2, 1 - levels], -1))
    equalized = 255 * np.asarray(jax.jit(augment.equalize)(image))
    expected = np.arange(256)
    # PIL's lookup moves a uniform histogram by up to one level
    np.testing.assert_allclose(equalized[..., 0].ravel()[:256], expected, atol=1.01)
    np.testing.assert_allclose(equalized[..., 2].ravel()[:256], expected[::-1], atol=1.01)


@pytest.mark.parametrize(
    ("name", "value"), [("adjust_hue", 0.6), ("posterize", 9), ("adjust_contrast", -0.1)]
)
def test_invalid_python_values_raise(name, value):
    with pytest.raises(ConfigError, match=f"={value} is not valid"):
        getattr(augment, name)(jnp.zeros((4, 4, 3)), value)
