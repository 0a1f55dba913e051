import os
import time

import numpy as np
import pytest
from PIL import Image

from jaxcifar import config as config_lib
from jaxcifar import data
from jaxcifar.data import folder
from jaxcifar.spec import ConfigError


@pytest.fixture
def folder_config(image_folder):
    config = config_lib.default()
    config.data.name = "folder"
    config.data.dir = str(image_folder)
    return config


def test_folder_reads_every_size_and_mode(folder_config):
    splits = data.load(folder_config)
    assert [len(part) for part in splits] == [16, 4, 8]
    assert splits.train.class_names == ("bright", "dark")
    means = splits.test.images.mean((1, 2, 3))
    np.testing.assert_array_equal(means < 128, splits.test.labels == 1)


def test_images_of_the_right_size_are_unchanged(folder_config, image_folder):
    _, test = folder.load(str(image_folder))
    with Image.open(image_folder / "test" / "bright" / "00.png") as image:
        np.testing.assert_array_equal(test.images[0], np.asarray(image))


def test_other_sizes_are_cropped_then_resized(image_folder):
    path = image_folder / "test" / "bright" / "01.png"
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200  # the central square
    Image.fromarray(wide).save(path)
    _, test = folder.load(str(image_folder))
    np.testing.assert_array_equal(test.images[1][:, 1:-1], 200)  # the filter reaches 1 outside


def test_sixteen_bit_grayscale_keeps_its_range(image_folder):
    path = image_folder / "test" / "bright" / "00.png"
    Image.fromarray(np.full((32, 32), 0x8000, np.uint16)).save(path)
    _, test = folder.load(str(image_folder))
    np.testing.assert_array_equal(test.images[0], 128)


def test_decoded_arrays_are_cached_until_files_change(image_folder, monkeypatch):
    before, _ = folder.load(str(image_folder))
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", lambda path: pytest.fail("decoded again"))
        again, _ = folder.load(str(image_folder))
    assert again.fingerprint() == before.fingerprint()
    time.sleep(0.01)  # a new modification time
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(image_folder / "train/bright/00.png")
    changed, _ = folder.load(str(image_folder))
    assert changed.images[0].max() == 0


def test_damaged_cache_is_replaced(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    before, _ = folder.load(str(image_folder))
    (cache,) = (tmp_path / "cache").glob("*.npy")
    content, array = cache.read_bytes(), np.load(cache)
    manifest = cache.with_name(f"{cache.name}.manifest.json")
    for damage in (
        lambda: cache.write_bytes(content[:500]),
        lambda: cache.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
        lambda: np.save(cache, array[:5]),
        lambda: np.save(cache, array.astype(np.int64)),
        manifest.unlink,
        lambda: manifest.write_text("{"),
    ):
        damage()
        again, _ = folder.load(str(image_folder))
        assert again.fingerprint() == before.fingerprint()
        assert cache.read_bytes() == content


def test_unreadable_files_raise(image_folder):
    (image_folder / "train" / "dark" / "00.png").write_bytes(b"not a picture")
    (image_folder / "train" / "dark" / "01.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"2 image files cannot be read: .*dark/00\.png.* them$"):
        folder.load(str(image_folder))
    (image_folder / "train" / "dark" / "01.png").unlink()
    with pytest.raises(ConfigError, match=r"1 image file cannot be read: .* remove it$"):
        folder.load(str(image_folder))


def test_what_is_no_regular_file_raises(image_folder):
    folder_of_dark = image_folder / "train" / "dark"
    os.mkfifo(folder_of_dark / "pipe.jpg")
    (folder_of_dark / "dangling.png").symlink_to(image_folder / "nothing.png")
    (folder_of_dark / "loop.png").symlink_to(folder_of_dark / "loop.png")
    (folder_of_dark / "folder.png").mkdir()
    with pytest.raises(ConfigError, match=r"4 image files cannot be read: .*dangling\.png, "):
        folder.load(str(image_folder))


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n(/tmp/pwned) (w) file\n",
        b"DDS |" + bytes(200),
        b"BLP2" + bytes(200),
        b"II*\0" + b"\xff" * 200,
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 100,
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(60),
        b"P6\n99999999 99999999\n255\n",
    ],
)
def test_hostile_contents_raise_and_start_nothing(image_folder, content, monkeypatch):
    def start(*arguments, **_):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr("subprocess.Popen", start)
    monkeypatch.setattr("os.system", start)
    (image_folder / "train" / "dark" / "00.jpg").write_bytes(content)
    with pytest.raises(ConfigError, match=r"1 image file cannot be read: .*00\.jpg"):
        folder.load(str(image_folder))


def test_contents_decide_and_not_the_extension(image_folder):
    path = image_folder / "train" / "dark" / "00.png"
    path.rename(path.with_suffix(".jpg"))
    assert len(folder.load(str(image_folder))[0]) == 20


def test_names_that_are_not_utf8_are_read(image_folder):
    for split in ("train", "test"):
        (image_folder / split / "dark").rename(image_folder / split / os.fsdecode(b"d\xffrk"))
    train, _ = folder.load(str(image_folder))
    assert train.class_names == ("bright", "d\udcffrk")


def test_hidden_and_other_files_are_ignored(image_folder):
    (image_folder / "train" / "dark" / ".DS_Store").write_bytes(b"x")
    (image_folder / "train" / "dark" / "notes.txt").write_text("x")
    train, _ = folder.load(str(image_folder))
    assert len(train) == 20


def test_long_decoding_is_announced(image_folder, monkeypatch, capsys):
    folder.load(str(image_folder))
    assert "Decoding" not in capsys.readouterr().out  # few images are not announced
    monkeypatch.setattr(folder, "_ANNOUNCE_ABOVE", 20)
    (image_folder / "train" / "dark" / "00.png").unlink()
    folder.load(str(image_folder))
    assert "Decoding 27 images; later runs read" in capsys.readouterr().out


def test_broken_folders_raise(image_folder, tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        folder.load(str(tmp_path / "nowhere"))
    (image_folder / "test" / "unknown").mkdir()
    with pytest.raises(ConfigError, match="train lacks: unknown"):
        folder.load(str(image_folder))
    (image_folder / "train" / "unknown").mkdir()
    with pytest.raises(ConfigError, match="unknown' holds no image files"):
        folder.load(str(image_folder))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no folder 'test'"):
        folder.load(str(tmp_path / "empty"))
    (tmp_path / "empty" / "test").mkdir()
    with pytest.raises(ConfigError, match="at least 2 class folders, but has 0"):
        folder.load(str(tmp_path / "empty"))
