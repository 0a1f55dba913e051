import functools

import jax
import numpy as np
import pytest
import scipy.stats

from jaxcifar import augment
from jaxcifar.augment.mix import mix

SIZE = 8
SIGNIFICANCE = 1e-3  # of each of the tests of randomness
IMAGES = np.broadcast_to(np.arange(SIZE, dtype=np.float32)[:, None, None, None], (SIZE, 12, 16, 1))
TARGETS = np.eye(SIZE, dtype=np.float32)


@functools.cache
def compiled(function):
    """Returns fn(keys, probabilities and alphas) -> images and targets of each key's draw."""
    return jax.jit(
        jax.vmap(lambda key, numbers: function(key, IMAGES, TARGETS, **numbers), (0, None))
    )


def many(function, count, **numbers):
    """Returns images and targets of many draws: row numbers as images, one-hot rows as targets."""
    keys = jax.random.split(jax.random.key(0), 4000)
    results = compiled(function)(keys, numbers)
    return tuple(np.asarray(result[:count]) for result in results)


def test_mixup_blends_every_row_with_another_by_one_weight():
    images, targets = many(augment.mixup, 500, prob=1.0, alpha=0.4)
    assert np.ptp(images, (2, 3, 4)).max() < 1e-6
    np.testing.assert_allclose(images[:, :, 0, 0, 0], targets @ np.arange(SIZE), atol=1e-5)
    np.testing.assert_allclose(targets.sum(2), 1, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)  # a permutation of the rows
    own = np.diagonal(targets, axis1=1, axis2=2)
    weights = own.min(1)  # the weight, where some row is not mixed with itself
    assert np.all((np.abs(own - weights[:, None]) < 1e-6) | (np.abs(own - 1) < 1e-6))
    assert scipy.stats.kstest(weights, scipy.stats.beta(0.4, 0.4).cdf).pvalue > SIGNIFICANCE


def test_mixup_pairs_are_a_uniform_permutation():
    _, targets = many(augment.mixup, 2000, prob=1.0, alpha=1.0)
    partners = np.where(np.eye(SIZE, dtype=bool), 0, targets).argmax(2)
    partners = np.where(partners.any(1, keepdims=True), partners, 0)[:, 0]
    counts = np.bincount(partners, minlength=SIZE)
    assert scipy.stats.chisquare(counts).pvalue > SIGNIFICANCE


def test_cutmix_pastes_one_rectangle_and_weighs_by_area():
    images, targets = many(augment.cutmix, 500, prob=1.0, alpha=1.0)
    rows = np.arange(SIZE)[:, None, None]
    changed = (images[..., 0] != rows).any(1)  # [draws, H, W]: the rectangle
    own = np.diagonal(targets, axis1=1, axis2=2).min(1)
    np.testing.assert_allclose(own, 1 - changed.mean((1, 2)), atol=1e-6)
    height, width = changed.any(2).sum(1), changed.any(1).sum(1)
    assert np.array_equal(height * width, changed.sum((1, 2)))  # filled
    partners = targets.argmax(2)
    for draw in np.flatnonzero(own < 0.5)[:50]:
        np.testing.assert_array_equal(
            images[draw, ..., 0], np.where(changed[draw], partners[draw][:, None, None], rows)
        )


def test_cutmix_rectangles_are_torchvisions():
    images, _ = many(augment.cutmix, 4000, prob=1.0, alpha=1.0)
    changed = (images[..., 0] != np.arange(SIZE)[:, None, None]).any(1)
    ours = np.stack([changed.any(2).sum(1), changed.any(1).sum(1)])
    rng = np.random.default_rng(0)
    radius = 0.5 * np.sqrt(1 - rng.beta(1, 1, 4000))
    theirs = []
    for length in (12, 16):
        center, half = rng.integers(length, size=4000), np.int32(radius * length)
        theirs.append(np.minimum(center + half, length) - np.maximum(center - half, 0))
    theirs = np.where(np.prod(theirs, 0) > 0, theirs, 0)  # an empty rectangle has no sides
    for found, expected, length in zip(ours, theirs, (12, 16), strict=True):
        table = [np.bincount(sides, minlength=length + 1) for sides in (found, expected)]
        table = np.array(table)[:, np.sum(table, 0) > 0]
        assert scipy.stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def test_one_draw_decides_between_mixup_cutmix_and_neither():
    images, targets = many(
        mix, 3000, mixup_prob=0.3, mixup_alpha=1.0, cutmix_prob=0.5, cutmix_alpha=1.0
    )
    is_mixed = np.abs(targets - TARGETS).max((1, 2)) > 1e-6
    is_mixup = is_mixed & (np.abs(images[..., 0] - np.round(images[..., 0])).max((1, 2, 3)) > 1e-6)
    counts = [is_mixup.sum(), (is_mixed & ~is_mixup).sum(), (~is_mixed).sum()]
    # a cutmix rectangle is empty now and then, and then the batch is as if it were not mixed
    rng = np.random.default_rng(0)
    radius = 0.5 * np.sqrt(1 - rng.beta(1, 1, 10**6))
    half = [np.int32(radius * length) for length in (12, 16)]
    empty = np.mean((half[0] == 0) | (half[1] == 0))
    expected = 3000 * np.array([0.3, 0.5 * (1 - empty), 0.2 + 0.5 * empty])
    assert scipy.stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("function", [augment.mixup, augment.cutmix])
def test_probability_0_changes_nothing(function):
    images, targets = many(function, 20, prob=0.0, alpha=1.0)
    np.testing.assert_array_equal(images, np.broadcast_to(IMAGES, images.shape))
    np.testing.assert_array_equal(targets, np.broadcast_to(TARGETS, targets.shape))
