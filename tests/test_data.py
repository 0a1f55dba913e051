import time

import numpy as np
import pytest
from PIL import Image

from jaxcifar import config as config_lib
from jaxcifar import data
from jaxcifar.config import ConfigError


@pytest.fixture
def folder_config(image_folder):
    config = config_lib.default()
    config.data.name = "folder"
    config.data.dir = str(image_folder)
    return config


def test_split_is_a_partition_drawn_by_seed(small_config):
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


def test_limit_draws_from_the_training_part(small_config):
    whole = data.load(small_config)
    small_config.data.limit = 100
    part = data.load(small_config)
    assert len(part.train) == 100
    images = {image.tobytes() for image in whole.train.images}
    assert all(image.tobytes() in images for image in part.train.images)
    assert part.val.fingerprint() == whole.val.fingerprint()
    small_config.data.limit = 481
    with pytest.raises(ConfigError, match=r"481 is more than the 480"):
        data.load(small_config)


def test_split_sizes_round_as_pytorchs(small_config):
    small_config.data.synthetic_size = 9
    assert [len(part) for part in data.load(small_config)] == [7, 2, 1]
    small_config.data.synthetic_size = 1
    with pytest.raises(ConfigError, match=r"val_fraction=0\.2 leaves nothing"):
        data.load(small_config)


def test_folder_reads_every_size_and_mode(folder_config):
    splits = data.load(folder_config)
    assert [len(part) for part in splits] == [16, 4, 8]
    assert splits.train.class_names == ("bright", "dark")
    means = splits.test.images.mean((1, 2, 3))
    np.testing.assert_array_equal(means < 128, splits.test.labels == 1)


def test_images_of_the_right_size_are_left_as_they_are(folder_config, image_folder):
    _, test = data.load_folder(str(image_folder))
    with Image.open(image_folder / "test" / "bright" / "00.png") as image:
        np.testing.assert_array_equal(test.images[0], np.asarray(image))


def test_other_sizes_are_cropped_then_resized(image_folder):
    path = image_folder / "test" / "bright" / "01.png"
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200  # the central square
    Image.fromarray(wide).save(path)
    _, test = data.load_folder(str(image_folder))
    np.testing.assert_array_equal(test.images[1][:, 1:-1], 200)  # the filter reaches 1 outside


def test_sixteen_bit_greyscale_keeps_its_range(image_folder):
    path = image_folder / "test" / "bright" / "00.png"
    Image.fromarray(np.full((32, 32), 0x8000, np.uint16)).save(path)
    _, test = data.load_folder(str(image_folder))
    np.testing.assert_array_equal(test.images[0], 128)


def test_cache_serves_the_second_start_and_follows_changes(image_folder, monkeypatch):
    before, _ = data.load_folder(str(image_folder))
    monkeypatch.setattr(data, "_decode", lambda path: pytest.fail("decoded again"))
    again, _ = data.load_folder(str(image_folder))
    assert again.fingerprint() == before.fingerprint()
    monkeypatch.undo()
    time.sleep(0.01)  # a new modification time
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(image_folder / "train/bright/00.png")
    changed, _ = data.load_folder(str(image_folder))
    assert changed.images[0].max() == 0


def test_damaged_cache_is_made_anew(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    before, _ = data.load_folder(str(image_folder))
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:500])
    again, _ = data.load_folder(str(image_folder))
    assert again.fingerprint() == before.fingerprint()


def test_unreadable_files_are_named(image_folder):
    (image_folder / "train" / "dark" / "00.png").write_bytes(b"not a picture")
    (image_folder / "train" / "dark" / "01.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"2 image files cannot be read: .*dark/00\.png"):
        data.load_folder(str(image_folder))


def test_hidden_and_foreign_files_are_passed_over(image_folder):
    (image_folder / "train" / "dark" / ".DS_Store").write_bytes(b"x")
    (image_folder / "train" / "dark" / "notes.txt").write_text("x")
    train, _ = data.load_folder(str(image_folder))
    assert len(train) == 20


def test_broken_folders_are_refused(image_folder, tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        data.load_folder(str(tmp_path / "nowhere"))
    (image_folder / "test" / "stranger").mkdir()
    with pytest.raises(ConfigError, match="train lacks: stranger"):
        data.load_folder(str(image_folder))
    (image_folder / "train" / "stranger").mkdir()
    with pytest.raises(ConfigError, match="stranger' holds no image files"):
        data.load_folder(str(image_folder))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no folder 'test'"):
        data.load_folder(str(tmp_path / "empty"))
    (tmp_path / "empty" / "test").mkdir()
    with pytest.raises(ConfigError, match="0 class folders"):
        data.load_folder(str(tmp_path / "empty"))
