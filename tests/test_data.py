import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from jaxcifar import data
from jaxcifar.data import Dataset
from jaxcifar.spec import ConfigError


def test_split_is_a_seeded_partition(small_config):
    splits = data.load(small_config)
    assert [len(part) for part in splits] == [480, 120, 120]
    for part in splits:
        assert part.images.shape[1:] == (32, 32, 3)
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        assert len(part.class_names) == 100
    whole = {image.tobytes() for part in splits[:2] for image in part.images}
    assert len(whole) == 600
    again = data.load(small_config)
    assert again.train.fingerprint() == splits.train.fingerprint()
    small_config.seed = 43
    assert data.load(small_config).train.fingerprint() != splits.train.fingerprint()


def test_limit_samples_from_the_training_split(small_config):
    whole = data.load(small_config)
    small_config.data.limit = 100
    part = data.load(small_config)
    assert len(part.train) == 100
    images = {image.tobytes() for image in whole.train.images}
    assert all(image.tobytes() in images for image in part.train.images)
    assert part.val.fingerprint() == whole.val.fingerprint()
    small_config.data.limit = 481
    with pytest.raises(ConfigError, match=r"limit=481 is not valid: .* 480$"):
        data.load(small_config)


def test_split_sizes_match_pytorch(small_config):
    small_config.data.synthetic_size = 9
    assert [len(part) for part in data.load(small_config)] == [7, 2, 1]
    small_config.data.synthetic_size = 1
    with pytest.raises(ConfigError, match=r"val_fraction=0\.2 leaves nothing to train on"):
        data.load(small_config)


def test_import_needs_no_jax_pillow_or_tfds():
    code = "import sys; from jaxcifar import data; print(*data.DATASETS); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = map(str.split, done.stdout.splitlines())
    assert names == ["cifar100", "cifar10", "synthetic100", "folder"]
    assert not {"jax", "PIL", "tensorflow_datasets"} & set(modules)


def test_unknown_dataset_raises(small_config):
    small_config.data.name = "cifar1000"
    with pytest.raises(ConfigError, match="no dataset 'cifar1000'; did you mean cifar100"):
        data.load(small_config)


def test_images_of_another_size_raise(small_config):
    with pytest.MonkeyPatch.context() as patch:
        cifar = data.DATASETS["synthetic100"]
        small = Dataset(np.zeros((10, 28, 28, 3), np.uint8), np.zeros(10, np.int32), ("a",))
        patch.setitem(
            data.DATASETS._entries,
            "synthetic100",
            dataclasses.replace(cifar, function=lambda **_: (small, small)),
        )
        with pytest.raises(ConfigError, match=r"size=32, but .* have 28×28 pixels: set it to 28"):
            data.read(small_config)


def test_synthetic_images_of_other_sizes(small_config):
    small_config.data.image_size = 64
    small_config.data.synthetic_size = 10
    assert data.read(small_config).train.images.shape == (10, 64, 64, 3)


def test_stratified_split_has_every_class_in_both(small_config):
    small_config.data.synthetic_size = 1100
    small_config.data.split = "stratified"
    splits = data.load(small_config)
    np.testing.assert_array_equal(np.bincount(splits.val.labels), np.full(100, 2))
    np.testing.assert_array_equal(np.bincount(splits.train.labels), np.full(100, 9))
    whole = {image.tobytes() for part in splits[:2] for image in part.images}
    assert len(whole) == 1100
    small_config.data.split = "auto"  # random, for a named data set
    assert np.ptp(np.bincount(data.load(small_config).val.labels, minlength=100)) > 1


def test_single_images_of_a_class_are_trained_on():
    images = np.zeros((7, 8, 8, 3), np.uint8)
    dataset = Dataset(images, np.array([0, 0, 0, 1, 2, 2, 2], np.int32), ("a", "b", "c"))
    parts = data.Parts(dataset, dataset)
    split = data.splits.split(parts, val_fraction=0.9, stratified=True, seed=0)
    np.testing.assert_array_equal(np.bincount(split.train.labels), [1, 1, 1])
    np.testing.assert_array_equal(np.bincount(split.val.labels), [2, 0, 2])
