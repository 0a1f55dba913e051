import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_reference import GEOMETRIC, cases, images, run, same_pixels

from jaxcifar import augment
from jaxcifar.spec import ConfigError

pytestmark = pytest.mark.numerics

# If a coordinate lies between two pixels, the last bit of sin and cos decides which is nearest, and
# that bit depends on the processor: a few pixels may differ.
SAME = 0.995


@pytest.mark.parametrize("name", GEOMETRIC)
def test_operation_matches_torchvision(name):
    for (which, arguments, theirs), ours in zip(cases(name), run(name), strict=True):
        assert ours.shape == theirs.shape
        if "bilinear" in arguments or name == "resized_crop":
            # torchvision truncates to integers, or rounds
            assert np.abs(ours - theirs).max() <= 1, (which, arguments)
        else:
            assert same_pixels(ours, theirs) >= SAME, (which, arguments)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_traced_parameters_may_differ_within_a_batch(name):
    chosen = [case for case in cases(name) if case[0] == "square" and len(case[1]) == 1]
    values = np.array([arguments[0] for _, arguments, _ in chosen], np.float32)
    operation = jax.vmap(getattr(augment, name), (None, 0))
    ours = 255 * np.asarray(jax.jit(operation)(images("square")[0], values))
    for result, (_, arguments, theirs) in zip(ours, chosen, strict=True):
        assert same_pixels(result[None], theirs[:1]) >= SAME, arguments


def test_crop_and_erase_take_traced_positions():
    image = images("square")[0]
    window = jax.jit(lambda top, left: augment.crop(image, top, left, 20, 30))(-3, 4)
    np.testing.assert_array_equal(window, augment.crop(image, -3, 4, 20, 30))
    erased = jax.jit(lambda i, h: augment.erase(image, i, 2, h, 5, 0.5))(7, 3)
    np.testing.assert_array_equal(erased, augment.erase(image, 7, 2, 3, 5, 0.5))


def test_erase_with_a_patch():
    image, patch = images("square")
    ours = np.array(augment.erase(image, 3, 4, 10, 5, patch[:10, :5]))
    np.testing.assert_array_equal(ours[3:13, 4:9], patch[:10, :5])
    ours[3:13, 4:9] = image[3:13, 4:9]
    np.testing.assert_array_equal(ours, image)


@pytest.mark.parametrize(
    "image", [np.zeros((32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3)), np.zeros((3, 32, 32))]
)
def test_non_image_raises(image):
    with pytest.raises(ConfigError, match=r"float \[H, W, 3\]"):
        augment.rotate(image, 10)


def test_unknown_interpolation_raises():
    with pytest.raises(ConfigError, match="'cubic' is not valid: it must be one of 'nearest'"):
        augment.rotate(jnp.zeros((8, 8, 3)), 10, "cubic")
