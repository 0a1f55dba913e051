import jax
import numpy as np
import pytest

from jaxcifar import batches, parallel
from jaxcifar.spec import ConfigError

# Part 3's but for randaugment, which takes longest to compile
MOST_OF_PART3 = (
    "random_crop(32, padding=4) | random_flip | color_jitter(0.2, 0.2, 0.2, 0.1)"
    " | random_rotation(10) | random_erasing(0.05)"
)


@pytest.fixture
def images_and_labels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 12, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, (4, 12), dtype=np.int32)


def prepare(config, images, labels):
    """Prepares the batches of steps 0, 1, ... of a run."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange(len(images)))
    return jax.jit(batches.make_prepare_batches(config, 10, parallel.setup(config)))(
        images, labels, keys
    )


@pytest.mark.numerics
def test_plain_batches_are_normalized_images(small_config, images_and_labels):
    images, labels = images_and_labels
    normalized, targets = prepare(small_config, images, labels)
    expected = (images / 255 - np.array(small_config.data.mean)) / np.array(small_config.data.std)
    np.testing.assert_allclose(normalized, expected, atol=1e-5)
    np.testing.assert_array_equal(targets.argmax(-1), labels)
    np.testing.assert_allclose(batches.normalize(images, small_config), expected, atol=1e-5)


@pytest.mark.numerics
def test_batch_is_independent_of_neighboring_steps(small_config, images_and_labels):
    """To float32 rounding, which differs between two compiled programs. Where an operation rounds
    to 8-bit levels or compares with a threshold, rounding can move a pixel by more: rarely.
    """
    small_config.augment = MOST_OF_PART3
    images, labels = images_and_labels
    three, _ = prepare(small_config, images[:3], labels[:3])
    two, _ = prepare(small_config, images[:2], labels[:2])
    difference = abs(np.asarray(three[1]) - np.asarray(two[1]))
    assert (difference > 1e-4).mean() < 1e-3


@pytest.mark.numerics
def test_mixing_is_independent_of_neighboring_steps(small_config, images_and_labels):
    """To float32 rounding of weighted sums of values up to 2.1."""
    small_config.mixup.prob = small_config.cutmix.prob = 0.5
    images, labels = images_and_labels
    four = prepare(small_config, images, labels)
    three = prepare(small_config, images[:3], labels[:3])
    for a, b in zip(four, three, strict=True):
        np.testing.assert_allclose(a[:3], b, atol=1e-5)


def test_augmentation_is_independent_per_image_and_step(small_config):
    small_config.augment = MOST_OF_PART3
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    images = np.broadcast_to(image, (2, 12, 32, 32, 3))
    augmented, _ = prepare(small_config, images, np.zeros((2, 12), np.int32))
    assert len({np.asarray(x).tobytes() for x in augmented.reshape(24, -1)}) == 24


def test_mixing_mixes_targets_too(small_config, images_and_labels):
    small_config.mixup.prob = 1.0
    _, targets = prepare(small_config, *images_and_labels)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    assert ((targets > 0).sum(-1) == 2).any()


def test_augmentation_that_changes_the_size_raises(small_config, images_and_labels):
    small_config.augment = "crop(0, 0, 5, 5)"
    with pytest.raises(ConfigError, match="turns images of 32×32 pixels into 5×5: it must keep"):
        prepare(small_config, *images_and_labels)


def test_views_differ_only_in_augmix(small_config, images_and_labels, monkeypatch):
    # Equal weights: drawing them takes longest to compile
    monkeypatch.setattr(
        jax.random, "dirichlet", lambda key, alpha: jax.numpy.full_like(alpha, 1 / len(alpha))
    )
    small_config.loss.consistency = 12.0
    small_config.augment = "random_crop(padding=4) | random_flip | augmix"
    images, labels = (part[:2] for part in images_and_labels)
    views, targets = prepare(small_config, images, labels)
    assert views.shape == (2, 36, 32, 32, 3)
    assert targets.shape == (2, 12, 10)
    clean, first, second = np.split(np.asarray(views), 3, axis=1)
    small_config.loss.consistency = 0.0
    small_config.augment = "random_crop(padding=4) | random_flip"
    np.testing.assert_allclose(clean, prepare(small_config, images, labels)[0], atol=1e-5)
    for one, other in ((clean, first), (clean, second), (first, second)):
        difference = np.abs(one - other).mean((2, 3, 4))
        assert (difference > 0.01).mean() > 0.9
        assert np.median(difference) < 0.6  # of the same image
