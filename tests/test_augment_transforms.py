import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from augment_reference import SIGNIFICANCE

from jaxcifar import augment
from jaxcifar.augment import geometry, transforms
from jaxcifar.data import CIFAR_MEAN, CIFAR_STD
from jaxcifar.spec import ConfigError

COUNT = 4000


def draw(transform, image, *arguments, **named):
    """Returns a transform's results on one image for COUNT keys."""
    keys = jax.random.split(jax.random.key(0), COUNT)
    return np.asarray(jax.jit(jax.vmap(lambda k: transform(k, image, *arguments, **named)))(keys))


def is_uniform(values, low, high):
    assert low <= values.min()
    assert values.max() <= high
    return (
        scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > SIGNIFICANCE
    )


def is_uniform_over(values, count):
    counts = np.bincount(np.asarray(values, int).ravel(), minlength=count)
    assert len(counts) == count
    return scipy.stats.chisquare(counts).pvalue > SIGNIFICANCE


def coordinates(height, width):
    """Returns an image whose red is the row + 1 and green the column + 1, in 100ths."""
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1] / np.float32(100)
    return jnp.stack([jnp.float32(rows), jnp.float32(columns), jnp.zeros((height, width))], -1)


@pytest.fixture
def recorded(monkeypatch):
    """Returns a function that draws from a transform, with a module's function replaced to return
    its arguments after the image, as one row.
    """

    def draws(module, name, transform, shape, *arguments):
        def record(image, *values):
            leaves = [x for x in jax.tree.leaves(values) if not isinstance(x, str)]
            return jnp.stack([jnp.asarray(leaf, jnp.float32) for leaf in leaves])

        monkeypatch.setattr(module, name, record)
        return draw(transform, jnp.zeros(shape), *arguments)

    return draws


def test_random_crop_samples_windows_uniformly():
    crops = draw(augment.random_crop, coordinates(10, 12), (8, 11), (2, 1))
    top = np.round(crops[:, 4, 5, 0] * 100).astype(int) - 5 + 1  # one row of padding
    left = np.round(crops[:, 4, 5, 1] * 100).astype(int) - 6 + 2  # two columns
    assert is_uniform_over(top * 6 + left, 5 * 6)
    for image, y, x in zip(crops[:10], top, left, strict=False):
        expected = augment.crop(coordinates(10, 12), y - 1, x - 2, 8, 11)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_random_crop_padding_matches_numpy(mode):
    image = np.asarray(coordinates(6, 5))
    actual = augment.random_crop(jax.random.key(0), image, (11, 11), (1, 2, 5, 3), mode)
    sides = ((2, 3), (1, 5), (0, 0))
    if mode == "reflect":
        sides, actual = ((2, 3), (1, 4), (0, 0)), actual[:, :10]
    np.testing.assert_array_equal(actual, np.pad(image, sides, mode=mode))


def test_random_crop_larger_than_the_image_raises():
    with pytest.raises(ConfigError, match="size=41 is larger than the padded image, 40 × 40"):
        augment.random_crop(jax.random.key(0), jnp.zeros((32, 32, 3)), 41, 4)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_random_flip_flips_with_probability_p(p):
    image = coordinates(3, 4)
    outputs = draw(augment.random_flip, image, p)
    flipped = (outputs == np.asarray(image)[:, ::-1]).all((1, 2, 3))
    assert np.all(flipped | (outputs == np.asarray(image)).all((1, 2, 3)))
    assert scipy.stats.binomtest(int(flipped.sum()), COUNT, p).pvalue > SIGNIFICANCE


def test_color_jitter_factors_and_order_match_torchvision(recorded):
    arguments = recorded(
        transforms, "_jitter", augment.color_jitter, (4, 4, 3), 0.2, 1.5, (0.3, 0.4), 0.1
    )
    factors, order = arguments[:, 0, :], arguments[:, 1, :].astype(int)
    for values, (low, high) in zip(
        factors.T, ((0.8, 1.2), (0, 2.5), (0.3, 0.4), (-0.1, 0.1)), strict=True
    ):
        assert is_uniform(values, low - 1e-6, high + 1e-6)  # float32's rounding
    orders = {order: index for index, order in enumerate(itertools.permutations(range(4)))}
    assert is_uniform_over([orders[tuple(row)] for row in order], 24)


def test_color_jitter_applies_adjustments_in_the_sampled_order():
    image = jax.random.uniform(jax.random.key(0), (8, 8, 3))
    factors = jnp.array([1.2, 0.7, 1.4, 0.1])
    adjustments = (
        augment.adjust_brightness,
        augment.adjust_contrast,
        augment.adjust_saturation,
        augment.adjust_hue,
    )
    orders = ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 0, 1))

    @jax.jit
    def one_by_one(image):
        results = []
        for order in orders:
            results.append(image)
            for index in order:
                results[-1] = adjustments[index](results[-1], factors[index])
        return jnp.stack(results)

    jitter = jax.jit(jax.vmap(transforms._jitter, (None, None, 0)))
    actual = jitter(image, factors, jnp.array(orders))
    np.testing.assert_allclose(actual, one_by_one(image), atol=1e-5)  # float32, four operations


def test_color_jitter_is_identity_by_default():
    image = jax.random.uniform(jax.random.key(0), (8, 8, 3))
    output = jax.jit(augment.color_jitter)(jax.random.key(1), image)
    np.testing.assert_allclose(output, image, atol=1e-5)  # float32, to HSV and back


@pytest.mark.parametrize("degrees", [10, (20, 90)])
def test_random_rotation_samples_angles_uniformly(monkeypatch, degrees):
    monkeypatch.setattr(geometry, "rotate", lambda image, angle, *_: angle)
    angles = draw(augment.random_rotation, jnp.zeros((4, 4, 3)), degrees)
    assert is_uniform(angles, *((-10, 10) if degrees == 10 else degrees))


def test_random_affine_sampling_matches_torchvision(monkeypatch):
    monkeypatch.setattr(
        geometry,
        "affine",
        lambda image, angle, move, scale, shear, *_: jnp.stack([angle, *move, scale, *shear]),
    )
    image = jnp.zeros((20, 30, 3))
    arguments = draw(augment.random_affine, image, 15, (0.1, 0.25), (0.8, 1.1), (-5, 10, 2, 3))
    angle, right, down, scale, shear_x, shear_y = arguments.T
    assert is_uniform(angle, -15, 15)
    for move, most in ((right, 3), (down, 5)):  # rounded: the ends are half as likely
        probabilities = np.array([0.5, *[1] * (2 * most - 1), 0.5]) / (2 * most)
        counts = np.bincount((move + most).astype(int), minlength=2 * most + 1)
        assert scipy.stats.chisquare(counts, COUNT * probabilities).pvalue > SIGNIFICANCE
    assert is_uniform(scale, 0.8, 1.1)
    assert is_uniform(shear_x, -5, 10)
    assert is_uniform(shear_y, 2, 3)
    arguments = draw(augment.random_affine, image, (5, 6), None, None, 4)
    np.testing.assert_array_equal(arguments[:, [1, 2, 5]], 0)
    np.testing.assert_array_equal(arguments[:, 3], 1)
    assert is_uniform(arguments[:, 4], -4, 4)


def erasing_rectangles(count, height, width, scale, ratio):
    """Returns (i, j, h, w) of RandomErasing by its definition, sampled one by one."""
    rng = np.random.default_rng(0)
    rectangles = []
    for _ in range(count):
        for _ in range(10):
            area = height * width * rng.uniform(*scale)
            aspect = np.exp(rng.uniform(*np.log(ratio)))
            h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if h < height and w < width:
                rectangles.append((rng.integers(height - h + 1), rng.integers(width - w + 1), h, w))
                break
        else:
            rectangles.append((0, 0, 0, 0))
    return np.array(rectangles)


@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.02, 0.33), (0.3, 3.3)), ((0.6, 1.0), (0.1, 10.0))]
)
def test_random_erasing_sampling_matches_torchvision(recorded, scale, ratio):
    actual = recorded(
        geometry, "erase", augment.random_erasing, (16, 24, 3), 1.0, scale, ratio, 0.5
    )[:, :4].astype(int)
    actual[actual[:, 2] == 0] = 0
    actual[actual[:, 3] == 0] = 0
    expected = erasing_rectangles(COUNT, 16, 24, scale, ratio)
    for ours, theirs in zip(actual.T, expected.T, strict=True):
        table = np.array([np.bincount(side, minlength=25) for side in (ours, theirs)])
        table = table[:, table.sum(0) > 10]
        assert scipy.stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def test_random_erasing_has_probability_p_and_fills_with_the_mean():
    image = jnp.full((16, 16, 3), 2.0)
    outputs = draw(augment.random_erasing, image, 0.3)
    painted = outputs != 2
    happened = painted.any((1, 2, 3))
    assert scipy.stats.binomtest(int(happened.sum()), COUNT, 0.3).pvalue > SIGNIFICANCE
    for channel, mean in enumerate(CIFAR_MEAN):
        np.testing.assert_allclose(outputs[..., channel][painted[..., channel]], mean, rtol=1e-6)
    sides = painted.any(2).sum(1), painted.any(1).sum(1)
    np.testing.assert_array_equal(painted.sum((1, 2)), sides[0] * sides[1])


def test_random_erasing_with_noise():
    image = jnp.full((16, 16, 3), 2.0)
    outputs = draw(augment.random_erasing, image, 1.0, value="random")
    for channel in range(3):
        values = outputs[..., channel][outputs[..., channel] != 2]
        noise = scipy.stats.norm(CIFAR_MEAN[channel], CIFAR_STD[channel])
        inside = (values > 0) & (values < 1)
        expected = noise.cdf(1) - noise.cdf(0)
        # about 10^5 values: six standard deviations of either statistic, or more
        assert abs(inside.mean() - expected) < 6 * (0.25 / values.size) ** 0.5
        assert abs(np.median(values) - CIFAR_MEAN[channel]) < 0.01


def test_cutout_centers_are_uniform_and_clipped_at_the_border():
    outputs = draw(augment.cutout, jnp.full((8, 10, 3), 2.0), 4, 0.0)
    painted = (outputs == 0).all(-1)
    assert painted.any((1, 2)).all()
    rows, columns = painted.any(2), painted.any(1)
    np.testing.assert_array_equal(painted, rows[:, :, None] & columns[:, None])
    for sides in (rows, columns):
        length = sides.shape[1]
        ends = np.stack([sides.argmax(1), length - sides[:, ::-1].argmax(1)], 1)
        spans = [(max(c - 2, 0), min(c + 2, length)) for c in range(length)]
        assert is_uniform_over([spans.index(tuple(end)) for end in ends], length)
