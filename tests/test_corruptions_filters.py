import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcifar.corruptions import filters

pytestmark = pytest.mark.numerics

PLANE = np.random.default_rng(0).uniform(size=(20, 33)).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.4, 1.0])
def test_gaussian_is_scikit_images(sigma):
    expected = ndimage.gaussian_filter(PLANE, sigma, mode="nearest", truncate=4)
    np.testing.assert_allclose(filters.gaussian(PLANE, sigma, 4), expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.96, 6.4])
def test_gaussian_of_other_radius_and_border(sigma):
    expected = ndimage.gaussian_filter(PLANE, sigma, mode="reflect", truncate=3)
    ours = filters.gaussian(PLANE, sigma, 19, truncate=3, mode="symmetric")
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.1, 1.25, 1.75, 2.25])
def test_zoom_is_scipys(factor):
    size = 32
    plane = np.resize(PLANE, (size, size))
    window = int(np.ceil(size / factor))
    start = (size - window) // 2
    inside = slice(start, start + window)
    larger = ndimage.zoom(plane[inside, inside], factor, order=1)
    margin = (len(larger) - size) // 2
    expected = larger[margin : margin + size, margin : margin + size]
    matrix = filters.zoom_matrix(size, jnp.float32(factor))
    np.testing.assert_allclose(filters.separable(plane, matrix, matrix), expected, atol=1e-5)


def test_correlate_is_opencvs_filter2d():
    kernel = np.arange(9.0).reshape(3, 3)
    expected = ndimage.correlate(PLANE, kernel, mode="mirror")
    np.testing.assert_allclose(filters.correlate(PLANE, kernel), expected, rtol=1e-5)


@pytest.mark.parametrize("degrees", [0.0, 30.0, -45.0, -90.0, -123.0])
def test_motion_adds_taps_on_one_side(degrees):
    radius, sigma = 5.2, 2.5
    height, width = PLANE.shape
    y, x = np.mgrid[:height, :width]
    total, weights = 0, 0
    for tap in range(13):
        right = np.ceil(tap * np.cos(np.radians(degrees)) - 0.5).astype(int)
        down = np.ceil(tap * np.sin(np.radians(degrees)) - 0.5).astype(int)
        weight = np.exp(-(tap**2) / (2 * sigma**2))
        rows, columns = np.clip(y + down, 0, height - 1), np.clip(x + right, 0, width - 1)
        total, weights = total + weight * PLANE[rows, columns], weights + weight
    ours = jax.jit(filters.motion)(PLANE[None], radius, sigma, degrees)[0]
    np.testing.assert_allclose(ours * 255, total / weights * 255, atol=0.5 + 1e-3)
