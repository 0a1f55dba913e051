"""What single corruptions do, where the libraries' own results cannot be compared: their draws are
others.
"""

import importlib.util
import pathlib
import re

import jax
import numpy as np
import pytest
from scipy import stats

from jaxcifar import corruptions
from jaxcifar.corruptions import blur, digital, noise, photographs, water, weather
from jaxcifar.spec import ConfigError

pytestmark = pytest.mark.numerics

KEY = jax.random.key(0)
PLANES = np.random.default_rng(0).integers(0, 256, (3, 32, 32)) / np.float32(255)


@pytest.fixture(scope="module")
def golden():
    return np.load(pathlib.Path(__file__).parent / "golden" / "corruptions.npz")


def test_shot_noise_is_poisson():
    shot_noise = jax.jit(noise.shot_noise)
    for level, photons in ((0, 500.0), (3, 60.0), (128, 100.0), (255, 50.0), (255, 500.0)):
        planes = np.full((3, 200, 200), level / 255, np.float32)
        counts = np.round(shot_noise(KEY, planes, photons) * photons)
        rate = level / 255 * photons
        at_most = np.cumsum(np.bincount(counts.astype(int).ravel(), minlength=700)) / counts.size
        # the Kolmogorov-Smirnov test of 120,000 draws, at a level of 1%
        np.testing.assert_allclose(at_most, stats.poisson.cdf(np.arange(700), rate), atol=0.0047)
        assert abs(counts - rate).max() < 6 * np.sqrt(rate) + 3


def test_impulse_noise_has_as_much_salt_as_pepper():
    changed = np.asarray(jax.jit(noise.impulse_noise)(KEY, np.full((3, 200, 200), 0.5), 0.1))
    assert (changed == 0).mean() == pytest.approx(0.05, abs=0.003)
    assert (changed == 1).mean() == pytest.approx(0.05, abs=0.003)
    assert set(np.unique(changed)) == {0, 0.5, 1}


def test_glass_blur_copies_neighbors_as_the_reference_does():
    """Pixel by pixel, through views of one array, with the same draws."""
    ours = np.asarray(jax.jit(blur.glass_blur)(KEY, PLANES, 0.0, 2))
    image = PLANES.transpose(1, 2, 0).copy()
    for index in range(2):
        up, left = jax.random.bernoulli(jax.random.fold_in(KEY, index), shape=(2, 32, 32)) * 1
        for row in range(31, 1, -1):
            for column in range(31, 1, -1):
                here = image[row, column]
                there = image[row - up[row, column], column - left[row, column]]
                here[:], there[:] = there, here
    np.testing.assert_allclose(ours, image.transpose(2, 0, 1), atol=1e-5)


def test_fog_is_diamond_square():
    """In place on one array, with the same draws."""
    size, decay = 32, 1.75
    uniform = np.asarray(jax.random.uniform(KEY, (size * size,), minval=-1, maxval=1))
    expected, scale, step = np.zeros((size, size)), 1.0, size
    while step > 1:
        half, count = step // 2, size // step
        draws = scale * uniform[count**2 : 4 * count**2].reshape(3, count, count)
        corners = expected[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        expected[half::step, half::step] = (pairs + np.roll(pairs, -1, 1)) / 4 + draws[0]
        centers = expected[half::step, half::step]
        beside = corners + np.roll(corners, -1, 1) + centers + np.roll(centers, 1, 0)
        expected[::step, half::step] = beside / 4 + draws[1]
        below = corners + np.roll(corners, -1, 0) + centers + np.roll(centers, 1, 1)
        expected[half::step, ::step] = below / 4 + draws[2]
        step, scale = half, scale / decay**2
    expected = (expected - expected.min()) / np.ptp(expected)
    plasma = jax.jit(weather._plasma, static_argnums=1)
    np.testing.assert_allclose(plasma(KEY, 30, decay), expected, atol=1e-5)


def test_elastic_transform_warps_as_opencv(golden):
    @jax.jit
    def warp(planes, corners, moved):
        return digital._sample(planes, *digital._corner_map(corners, moved, 32, 32), mode="mirror")

    planes = golden["images"][0].transpose(2, 0, 1).astype(np.float32)
    ours = warp(planes, golden["corners"], golden["moved"]).transpose(1, 2, 0)
    # OpenCV rounds coordinates to 1/32 pixel
    np.testing.assert_allclose(ours, golden["warped"], atol=1.5)


@pytest.mark.parametrize("index", range(3))
def test_water_is_opencvs_chain(golden, index):
    levels = golden["water_levels"][index].astype(np.float32)
    edges = jax.jit(water.canny)(levels, 50, 150)
    np.testing.assert_array_equal(edges, golden["water_edges"][index])
    distance = jax.jit(water.distances)(edges)
    np.testing.assert_allclose(distance, golden["water_distance"][index], atol=1e-3)
    equalized = jax.jit(water.equalize)(golden["water_mean"][index].astype(np.float32))
    np.testing.assert_array_equal(equalized, golden["water_equalized"][index])
    light = jax.jit(water.highlights)(golden["liquids"][index])
    np.testing.assert_allclose(light, golden["water_highlights"][index], atol=0.02)


def test_water_without_drops_or_edges():
    assert (jax.jit(water.highlights)(np.zeros((32, 32), np.float32)) == 0).all()
    assert (jax.jit(water.distances)(np.zeros((32, 32), bool)) == water.FARTHEST).all()
    assert (jax.jit(water.equalize)(np.full((32, 32), 7, np.float32)) == 7).all()


def test_frost_adds_a_window_of_a_photograph(frost_photographs):
    black = np.zeros((40, 40, 45, 3), np.uint8)
    frosted = corruptions.corrupt(KEY, black, "frost", 5) / 0.45
    small = [photo[2::5, 2::5] for photo in list(frost_photographs.values())[:5]]
    found = set()
    for image in frosted:
        # the photograph repeats where it is smaller: 41 pixels high, 41 wide and more
        for index, photo in enumerate(small):
            wide = np.concatenate([photo, photo], 1)
            windows = np.lib.stride_tricks.sliding_window_view(wide, (40, 45), (0, 1))
            differences = abs(windows.transpose(0, 1, 3, 4, 2) - image).max((2, 3, 4))
            if differences.min() < 1 / 0.45 + 0.01:  # truncated
                found.add(index)
                break
        else:
            pytest.fail("no window")
    assert found == set(range(5))


def test_frost_without_photographs(monkeypatch):
    photographs.load.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert len(corruptions.available()) == 18
    assert "frost" not in corruptions.available()
    images = np.zeros((1, 21, 21, 3), np.uint8)  # a size that is not compiled yet
    with pytest.raises(ConfigError, match=re.escape("pip install --no-deps imagecorruptions")):
        corruptions.corrupt(KEY, images, "frost", 1)
