import functools

import jax
import numpy as np
import pytest
import scipy.stats
from augment_reference import SIGNIFICANCE

from jaxcifar import augment
from jaxcifar.augment.mix import mix

SIZE = 8
IMAGES = np.broadcast_to(np.arange(SIZE, dtype=np.float32)[:, None, None, None], (SIZE, 12, 16, 1))
TARGETS = np.eye(SIZE, dtype=np.float32)
PROBS_AND_ALPHAS = ("mixup_prob", "mixup_alpha", "cutmix_prob", "cutmix_alpha")


@functools.cache
def mix_many(mixup, cutmix):
    """Returns 4,000 mixes with these probabilities and alphas: images and targets."""
    values = dict(zip(PROBS_AND_ALPHAS, (*mixup, *cutmix), strict=True))
    keys = jax.random.split(jax.random.key(0), 4000)
    return jax.jit(jax.vmap(lambda key: mix(key, IMAGES, TARGETS, **values)))(keys)


def draw(count, mixup=(0.0, 1.0), cutmix=(0.0, 1.0)):
    """Returns images and targets of many draws: row indices as images, one-hot rows as targets."""
    return tuple(np.asarray(result[:count]) for result in mix_many(mixup, cutmix))


@pytest.mark.parametrize("function", [augment.mixup, augment.cutmix])
def test_mixup_and_cutmix_match_mix_with_other_disabled(function):
    values = {name: 1.0 if name.endswith("alpha") else 0.0 for name in PROBS_AND_ALPHAS}
    values |= {f"{function.__name__}_prob": 0.3, f"{function.__name__}_alpha": 0.4}
    arguments = (jax.random.key(0), IMAGES, TARGETS)
    program = jax.make_jaxpr(lambda *args: function(*args, prob=0.3, alpha=0.4))(*arguments)
    expected = jax.make_jaxpr(lambda *args: mix(*args, **values))(*arguments)
    assert str(program) == str(expected)


def test_mixup_mixes_pairs_of_rows_with_one_lam():
    images, targets = draw(4000, mixup=(1.0, 0.4))
    # tolerances: float32's rounding of sums of two products, of numbers up to 7
    assert np.ptp(images, (2, 3, 4)).max() < 1e-6
    np.testing.assert_allclose(images[:, :, 0, 0, 0], targets @ np.arange(SIZE), atol=1e-5)
    np.testing.assert_allclose(targets.sum(2), 1, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)  # a permutation of the rows
    own = np.diagonal(targets, axis1=1, axis2=2)
    lam = own.min(1)  # where some row is not mixed with itself
    assert np.all((np.abs(own - lam[:, None]) < 1e-6) | (np.abs(own - 1) < 1e-6))
    assert scipy.stats.kstest(lam, scipy.stats.beta(0.4, 0.4).cdf).pvalue > SIGNIFICANCE


def test_mixup_pairs_are_a_uniform_permutation():
    _, targets = draw(4000, mixup=(1.0, 1.0))
    permutations = np.where(np.eye(SIZE, dtype=bool), 0, targets).argmax(2)
    permutations = np.where(permutations.any(1, keepdims=True), permutations, 0)[:, 0]
    counts = np.bincount(permutations, minlength=SIZE)
    assert scipy.stats.chisquare(counts).pvalue > SIGNIFICANCE


def test_cutmix_pastes_one_rectangle_and_mixes_targets_by_area():
    images, targets = draw(500, cutmix=(1.0, 1.0))
    rows = np.arange(SIZE)[:, None, None]
    changed = (images[..., 0] != rows).any(1)  # [draws, H, W]: the rectangle
    own = np.diagonal(targets, axis1=1, axis2=2).min(1)
    np.testing.assert_allclose(own, 1 - changed.mean((1, 2)), atol=1e-6)
    height, width = changed.any(2).sum(1), changed.any(1).sum(1)
    assert np.array_equal(height * width, changed.sum((1, 2)))  # filled
    permutations = targets.argmax(2)
    for index in np.flatnonzero(own < 0.5)[:50]:
        np.testing.assert_array_equal(
            images[index, ..., 0],
            np.where(changed[index], permutations[index][:, None, None], rows),
        )


def test_cutmix_rectangles_match_torchvision():
    images, _ = draw(4000, cutmix=(1.0, 1.0))
    changed = (images[..., 0] != np.arange(SIZE)[:, None, None]).any(1)
    ours = np.stack([changed.any(2).sum(1), changed.any(1).sum(1)])
    rng = np.random.default_rng(0)
    radius = 0.5 * np.sqrt(1 - rng.beta(1, 1, 4000))
    theirs = []
    for length in (12, 16):
        center, half = rng.integers(length, size=4000), np.int32(radius * length)
        theirs.append(np.minimum(center + half, length) - np.maximum(center - half, 0))
    theirs = np.where(np.prod(theirs, 0) > 0, theirs, 0)  # an empty rectangle has no sides
    for actual, expected, length in zip(ours, theirs, (12, 16), strict=True):
        table = [np.bincount(sides, minlength=length + 1) for sides in (actual, expected)]
        table = np.array(table)[:, np.sum(table, 0) > 0]
        assert scipy.stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def test_one_draw_chooses_mixup_cutmix_or_neither():
    images, targets = draw(4000, mixup=(0.3, 1.0), cutmix=(0.5, 1.0))
    is_mixed = np.abs(targets - TARGETS).max((1, 2)) > 1e-6
    is_mixup = is_mixed & (np.abs(images[..., 0] - np.round(images[..., 0])).max((1, 2, 3)) > 1e-6)
    counts = [is_mixup.sum(), (is_mixed & ~is_mixup).sum(), (~is_mixed).sum()]
    # a cutmix rectangle is sometimes empty, which leaves the batch unmixed
    rng = np.random.default_rng(0)
    radius = 0.5 * np.sqrt(1 - rng.beta(1, 1, 10**6))
    half = [np.int32(radius * length) for length in (12, 16)]
    empty = np.mean((half[0] == 0) | (half[1] == 0))
    expected = 4000 * np.array([0.3, 0.5 * (1 - empty), 0.2 + 0.5 * empty])
    assert scipy.stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


def test_probability_0_is_identity():
    images, targets = draw(20)
    np.testing.assert_array_equal(images, np.broadcast_to(IMAGES, images.shape))
    np.testing.assert_array_equal(targets, np.broadcast_to(TARGETS, targets.shape))
