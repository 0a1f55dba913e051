import jax
import numpy as np
import pytest
from PIL import Image

from jaxcifar import augment, corruptions, data, parallel, picture
from jaxcifar.augment.parse import read
from jaxcifar.spec import ConfigError, PositiveInt


def test_every_transform_has_an_example_that_makes_an_image():
    pipelines = picture.example_pipelines()
    names = {name for name, entry in augment.TRANSFORMS.items() if "_in_tests" not in name}
    assert {read(pipeline)[0][0] for pipeline in pipelines} == names
    image = jax.ShapeDtypeStruct((32, 32, 3), np.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    for pipeline in pipelines:
        result = jax.eval_shape(augment.parse(pipeline), key, image)
        assert (result.shape, result.dtype) == (image.shape, image.dtype), pipeline


def test_user_transforms_are_shown_by_their_examples_or_name():
    @augment.transform("plain_in_tests")
    def plain(image: jax.Array, size: PositiveInt = 1) -> jax.Array:
        return image

    @augment.transform("needs_size_in_tests")
    def needs_size(image: jax.Array, size: PositiveInt) -> jax.Array:
        return image

    @augment.transform("examples_in_tests", examples=("examples_in_tests(2)",))
    def examples(image: jax.Array, size: PositiveInt) -> jax.Array:
        return image

    pipelines = [text for text in picture.example_pipelines() if "_in_tests" in text]
    assert pipelines == ["plain_in_tests", "examples_in_tests(2)"]


def test_without_augment_there_are_no_samples(small_config, image_folder, monkeypatch):
    small_config.data.name, small_config.data.dir = "folder", str(image_folder)
    monkeypatch.setattr(picture, "example_pipelines", lambda: ["invert"])
    monkeypatch.setattr(corruptions, "available", lambda: ["pixelate"])
    labels, images = zip(*picture.make_rows(small_config), strict=True)
    assert labels == ("original", "invert", "pixelate, severity 0 to 5")
    np.testing.assert_array_equal(images[1], 1 - images[0])
    np.testing.assert_array_equal(images[2][[0, 6]], images[0][:2])
    assert (images[2][5] != images[2][0]).any()


def test_unwritable_outputs_raise(small_config, image_folder, tmp_path, monkeypatch):
    small_config.data.name, small_config.data.dir = "folder", str(image_folder)
    with pytest.raises(ConfigError, match=r"must be a file named \*\.png"):
        picture.write(small_config, tmp_path / "aug.jpg")
    monkeypatch.setattr(picture, "example_pipelines", list)
    monkeypatch.setattr(corruptions, "available", list)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        picture.write(small_config, tmp_path / "file" / "aug.png")


def test_the_small_picture_shows_images_and_their_augmentation(small_config, tmp_path):
    small_config.augment = "solarize(0)"
    train, path = data.load(small_config).train, tmp_path / "preview.png"
    picture.write_samples(small_config, train, parallel.setup(small_config), path)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (4 + 4 * 68, 70 + 8 * 68, 3)
    tiles = pixels[4:, 70:].reshape(4, 68, 8, 68, 3)[:, :64:2, :, :64:2].swapaxes(1, 2)
    np.testing.assert_array_equal(tiles[0], train.images[:8])
    for sample in tiles[1:]:
        np.testing.assert_array_equal(sample, 255 - train.images[:8])
    assert [file.name for file in tmp_path.iterdir()] == ["preview.png"]
