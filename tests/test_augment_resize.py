import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_reference import SIGNIFICANCE
from scipy import stats

from jaxcifar import augment
from jaxcifar.augment import resize

COUNT = 4000


@pytest.fixture
def windows(monkeypatch):
    """Returns a function that draws windows (top, left, height, width, result's height, width)."""

    def record(image, *values):
        return jnp.stack([jnp.float32(x) for x in jax.tree.leaves(values)])

    monkeypatch.setattr(resize, "resized_crop", record)

    def draw(shape, *arguments):
        keys = jax.random.split(jax.random.key(0), COUNT)

        def one(key):
            return augment.random_resized_crop(key, jnp.zeros(shape), *arguments)

        return np.asarray(jax.jit(jax.vmap(one))(keys))

    return draw


def test_windows_are_drawn_like_torchvisions(windows):
    """Area and the ratio's logarithm are uniform where every window fits; so is the place."""
    top, left, height, width, *size = windows((400, 400, 3), None, (0.1, 0.3), (0.5, 2.0)).T
    assert (np.stack(size) == 400).all()
    for values, low, high in (
        (height * width / 400**2, 0.1, 0.3),
        (np.log(width / height), np.log(0.5), np.log(2)),
        ((top + 0.5) / (401 - height), 0, 1),
        ((left + 0.5) / (401 - width), 0, 1),
    ):
        # Sizes are whole pixels, which moves the ends by a percent
        uniform = stats.uniform(low, high - low)
        assert stats.kstest(values, uniform.cdf).pvalue > SIGNIFICANCE
    assert (top + height <= 400).all()
    assert (left + width <= 400).all()


@pytest.mark.parametrize(
    ("shape", "ratio", "expected"),
    [
        ((10, 40), (0.5, 2.0), (0, 10, 10, 20)),
        ((40, 10), (0.5, 2.0), (10, 0, 20, 10)),
        ((20, 20), (0.9, 1.1), (0, 0, 20, 20)),
    ],
)
def test_without_a_window_that_fits_it_is_central(windows, shape, ratio, expected):
    drawn = windows((*shape, 3), 8, (1.0, 1.0), ratio)
    fallback = drawn[(drawn[:, :4] == expected).all(1)]
    assert len(fallback) > COUNT / 2
    assert (fallback[:, 4] == 8).all()


def test_size_is_the_images_own_by_default():
    def shape(transform, *arguments, **named):
        image = jnp.zeros((20, 28, 3))
        return jax.eval_shape(
            lambda: transform(jax.random.key(1), image, *arguments, **named)
        ).shape

    assert shape(augment.random_resized_crop) == (20, 28, 3)
    assert shape(augment.random_resized_crop, 16) == (16, 16, 3)
    assert shape(augment.random_crop, padding=4) == (20, 28, 3)


def test_a_window_of_the_results_size_is_not_resampled():
    image = jax.random.uniform(jax.random.key(0), (20, 28, 3))
    window = augment.resized_crop(image, 3, 5, 10, 12, (10, 12))
    np.testing.assert_allclose(window, image[3:13, 5:17], atol=1e-6)
