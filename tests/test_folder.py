import os
import shutil
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
    test = folder.load(str(image_folder)).test
    with Image.open(image_folder / "test" / "bright" / "00.png") as image:
        np.testing.assert_array_equal(test.images[0], np.asarray(image))


def test_other_sizes_are_cropped_then_resized(image_folder):
    path = image_folder / "test" / "bright" / "01.png"
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200  # the central square
    Image.fromarray(wide).save(path)
    test = folder.load(str(image_folder)).test
    np.testing.assert_array_equal(test.images[1][:, 1:-1], 200)  # the filter reaches 1 outside


def test_sixteen_bit_grayscale_keeps_its_range(image_folder):
    path = image_folder / "test" / "bright" / "00.png"
    Image.fromarray(np.full((32, 32), 0x8000, np.uint16)).save(path)
    test = folder.load(str(image_folder)).test
    np.testing.assert_array_equal(test.images[0], 128)


def test_decoded_arrays_are_cached_until_files_change(image_folder, monkeypatch):
    before = folder.load(str(image_folder)).train
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", lambda path: pytest.fail("decoded again"))
        again = folder.load(str(image_folder)).train
    assert again.fingerprint() == before.fingerprint()
    time.sleep(0.01)  # a new modification time
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(image_folder / "train/bright/00.png")
    changed = folder.load(str(image_folder)).train
    assert changed.images[0].max() == 0


def test_damaged_cache_is_replaced(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    before = folder.load(str(image_folder)).train
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
        again = folder.load(str(image_folder)).train
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
    assert len(folder.load(str(image_folder)).train) == 20


def test_names_that_are_not_utf8_are_read(image_folder):
    for split in ("train", "test"):
        (image_folder / split / "dark").rename(image_folder / split / os.fsdecode(b"d\xffrk"))
    train = folder.load(str(image_folder)).train
    assert train.class_names == ("bright", "d\udcffrk")


def test_hidden_and_other_files_are_ignored(image_folder):
    (image_folder / "train" / "dark" / ".DS_Store").write_bytes(b"x")
    (image_folder / "train" / "dark" / "notes.txt").write_text("x")
    train = folder.load(str(image_folder)).train
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
    with pytest.raises(ConfigError, match="test has classes that train lacks: unknown"):
        folder.load(str(image_folder))
    (image_folder / "train" / "unknown").mkdir()
    with pytest.raises(ConfigError, match="unknown' holds no image files"):
        folder.load(str(image_folder))
    empty = tmp_path / "empty"
    (empty / "test").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no folder 'train'"):
        folder.load(str(empty))
    (empty / "train").mkdir()
    with pytest.raises(ConfigError, match="train must have at least 2 class folders, but has 0"):
        folder.load(str(empty))
    shutil.rmtree(image_folder / "train" / "unknown")
    shutil.rmtree(image_folder / "test")
    (image_folder / "test" / "dark").mkdir(parents=True)
    with pytest.raises(ConfigError, match="test has no images in class folders"):
        folder.load(str(image_folder))
    shutil.rmtree(empty)
    (empty / "one").mkdir(parents=True)
    with pytest.raises(ConfigError, match="it must have at least 2 class folders, but has 1"):
        folder.load(str(empty))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folder(folder_config, image_folder, name):
    shutil.copytree(image_folder / "test", image_folder / name)
    (image_folder / name / "dark" / "03.png").unlink()
    splits = data.load(folder_config)
    assert [len(part) for part in splits] == [20, 7, 8]
    assert not splits.tests_on_val
    shutil.rmtree(image_folder / "test")
    splits = data.load(folder_config)
    assert [len(part) for part in splits] == [20, 7, 7]
    assert splits.tests_on_val
    (note, few) = data.splits.notes(splits, data.read(folder_config), batch_size=2)
    assert note.startswith("the data has no test images: the test score is that of the validation")
    assert "2 of 2 classes have fewer than 5 validation images (dark 3, bright 4)" in few


@pytest.mark.parametrize("with_train", [False, True])
def test_class_folders_alone_are_split_in_three(folder_config, image_folder, with_train):
    """Also if one of the classes is called train."""
    root = image_folder / "train"
    if with_train:
        (root / "dark").rename(root / "train")
    folder_config.data.dir = str(root)
    splits = data.load(folder_config)
    assert splits.train.class_names == ("bright", "train" if with_train else "dark")
    for part, count in zip(splits, (6, 2, 2), strict=True):
        np.testing.assert_array_equal(np.bincount(part.labels), [count, count])
    assert len({image.tobytes() for part in splits for image in part.images}) == 20
    notes = data.splits.notes(splits, data.read(folder_config), batch_size=6)
    assert notes[0].startswith(
        "the data has no val or test images, so they are drawn from it: 12 train, 4 v"
    )
    assert notes[-1].startswith("warning: 12 training images make only 2 steps an epoch")
    folder_config.data.val_fraction = 0.5
    with pytest.raises(ConfigError, match=r"val_fraction=0\.5 leaves nothing .* below 0\.5"):
        data.load(folder_config)


def test_classes_may_be_missing_in_test(folder_config, image_folder):
    shutil.rmtree(image_folder / "test" / "dark")
    splits = data.load(folder_config)
    assert [len(part) for part in splits] == [16, 4, 4]
    notes = data.splits.notes(splits, data.read(folder_config), batch_size=1)
    assert "2 of 2 classes have fewer than 5 test images (dark 0, bright 4)" in notes[-1]


def test_image_size(folder_config, image_folder):
    folder_config.data.image_size = 64
    whole = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(whole).save(image_folder / "test" / "bright" / "00.png")
    test = data.load(folder_config).test
    assert test.images.shape == (8, 64, 64, 3)
    np.testing.assert_array_equal(test.images[0], whole)
    folder_config.data.image_size = 32  # cached by itself
    assert data.load(folder_config).test.images.shape == (8, 32, 32, 3)


def test_large_photos_look_as_if_decoded_in_full(tmp_path):
    """JPEG's own reduction, which is used for them, differs little from a resize."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    photo = Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.jpg", quality=95)
    (image,) = folder.decode_all([str(tmp_path / "photo.jpg")], 32)
    expected = folder.fit(photo, 32)
    assert np.abs(image.astype(int) - expected).max() <= 4


def test_transparent_pixels_are_black(tmp_path):
    pixels = np.full((32, 32, 4), 200, np.uint8)
    pixels[:16, :, 3] = 0
    pixels[16:, :, 3] = 255
    image = folder.fit(Image.fromarray(pixels), 32)
    assert (image[:16] == 0).all()
    assert (image[16:] == 200).all()


def test_rotation_by_exif(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: shown after a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    (image,) = folder.decode_all([str(tmp_path / "photo.png")], 32)
    np.testing.assert_array_equal(image, np.rot90(pixels, -1))


def test_too_many_images_for_the_memory_raise(image_folder, monkeypatch):
    monkeypatch.setattr("jaxcifar.memory.available_bytes", lambda: 100_000)
    with pytest.raises(ConfigError, match=r"28 images of 64×64 pixels take 0\.00 GB, and 0\.00 GB"):
        folder.load(str(image_folder), 64)
