import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcifar import corruptions
from jaxcifar.corruptions import (
    CORRUPTIONS,
    EXTRA,
    STANDARD,
    apply,
    corruption,
    photographs,
)
from jaxcifar.registry import UnknownNameError
from jaxcifar.spec import ConfigError

KEY = jax.random.key(0)
RANDOM = [name for name, entry in CORRUPTIONS.items() if entry.is_random]
DETERMINISTIC = [name for name in CORRUPTIONS if name not in RANDOM]

# What the benchmark's own code does to every 25th of the real test images, in their sorted order:
# the mean absolute difference at severities 1 to 5, in 1/255
REFERENCE = {
    "gaussian_noise": (8.0, 11.9, 15.8, 17.7, 19.6),
    "shot_noise": (5.9, 8.4, 13.1, 15.1, 18.4),
    "impulse_noise": (1.3, 2.5, 3.8, 6.4, 8.9),
    "speckle_noise": (5.7, 9.4, 11.2, 14.7, 18.2),
    "defocus_blur": (1.4, 3.3, 5.0, 6.5, 9.3),
    "glass_blur": (11.4, 11.5, 11.2, 18.3, 17.6),
    "motion_blur": (7.2, 10.5, 13.0, 13.1, 15.2),
    "zoom_blur": (8.9, 10.5, 12.5, 14.6, 16.5),
    "snow": (10.8, 23.7, 25.4, 37.0, 51.9),
    "frost": (30.3, 44.8, 50.3, 44.3, 43.4),
    "fog": (10.6, 21.1, 26.7, 32.2, 38.4),
    "brightness": (10.1, 20.5, 30.4, 39.8, 56.7),
    "contrast": (10.3, 20.6, 24.7, 28.8, 35.0),
    "elastic_transform": (22.3, 19.9, 18.1, 16.3, 13.7),
    "pixelate": (2.0, 3.5, 4.3, 6.3, 8.7),
    "jpeg_compression": (1.9, 3.4, 5.1, 6.9, 7.2),
    "gaussian_blur": (1.3, 4.9, 6.3, 7.5, 9.4),
    "spatter": (1.0, 2.8, 6.7, 3.1, 5.1),
    "saturate": (11.2, 14.5, 7.8, 19.6, 28.8),
}


@pytest.fixture(scope="module")
def golden():
    return np.load(pathlib.Path(__file__).parent / "golden" / "corruptions.npz")


def make_images(count, height, width, seed=0):
    """Returns smooth images uint8 [count, height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 5, 5, 3), np.uint8)
    size = (width, height)
    return np.stack([np.asarray(Image.fromarray(image).resize(size)) for image in coarse])


def test_the_benchmark_has_15_standard_and_4_extra_corruptions():
    assert (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ) == STANDARD
    assert EXTRA == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert set(REFERENCE) == {*STANDARD, *EXTRA}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_corruptions_match_the_reference_libraries(golden, name):
    for severity, expected in enumerate(golden[name], 1):
        ours = corruptions.corrupt(KEY, golden["images"], name, severity)
        difference = abs(ours.astype(int) - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.1


@pytest.mark.parametrize("name", [*RANDOM, "zoom_blur", "contrast", "pixelate"])
def test_parts_of_an_array_are_what_the_whole_would_be(name, frost_photographs):
    """Also that runs repeat, images that are not square, and more than one batch."""
    images = make_images(300, 24, 40)
    whole = corruptions.corrupt(KEY, images, name, 3)
    assert (whole.shape, whole.dtype) == (images.shape, np.uint8)
    parts = [
        corruptions.corrupt(KEY, images[rows], name, 3, first_row=rows.start)
        for rows in (slice(0, 7), slice(7, 280), slice(280, 300))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole != images).any()
    if name in RANDOM:
        same = corruptions.corrupt(KEY, np.repeat(images[:1], 3, 0), name, 3)
        assert (same[0] != same[1]).any()  # each image draws for itself
        other = corruptions.corrupt(jax.random.key(1), images[:3], name, 3)
        assert (other != whole[:3]).any()


@pytest.mark.parametrize("name", [n for n in CORRUPTIONS if not CORRUPTIONS[n].on_host])
def test_any_size_is_traced(name, frost_photographs):
    shape = (16, 100)
    entry = CORRUPTIONS[name]
    planes = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    keys = (jax.eval_shape(lambda: KEY),) if entry.is_random else ()
    result = jax.eval_shape(entry.function, *keys, planes, **entry.constants_at(3))
    assert (result.shape, result.dtype) == (planes.shape, jnp.float32)


@pytest.mark.parametrize("name", ["brightness", "zoom_blur", "jpeg_compression"])
def test_larger_images(name):
    images = make_images(2, 64, 64)
    result = corruptions.corrupt(KEY, images, name, 5)
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    assert 1 < abs(result.astype(int) - images).mean() < 100


def test_severities_share_one_program():
    images = make_images(1, 17, 19)
    for name in ("saturate", "zoom_blur"):  # with float and integer constants
        before = apply._corrupt_batch._cache_size()
        for severity in range(1, 6):
            corruptions.corrupt(KEY, images, name, severity)
        assert apply._corrupt_batch._cache_size() == before + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((make_images(1, 32, 32), "mist", 1), "there is no corruption 'mist'"),
        ((make_images(1, 32, 32), "fog", 0), "severity=0 is not valid: it must be an integer"),
        ((make_images(1, 32, 32), "fog", 6), "from 1 to 5"),
        ((make_images(1, 32, 32), "fog", 1.5), "from 1 to 5"),
        ((make_images(1, 32, 32) / 255, "fog", 1), r"not float64 \[1, 32, 32, 3\]"),
        ((make_images(1, 32, 32)[0], "fog", 1), r"not uint8 \[32, 32, 3\]"),
        ((make_images(1, 32, 32)[..., :1], "fog", 1), r"not uint8 \[1, 32, 32, 1\]"),
        (([], "fog", 1), r"not list \[0\]"),
        ((make_images(1, 32, 15), "fog", 1), "at least 16 pixels a side, not .1, 32, 15, 3"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ConfigError, match=message):
        corruptions.corrupt(KEY, *arguments)


def test_no_images_are_no_error():
    for name in ("fog", "pixelate"):
        assert corruptions.corrupt(KEY, make_images(2, 32, 32)[:0], name, 1).shape == (0, 32, 32, 3)


def test_generate_goes_through_severities_with_keys_of_their_own():
    images = make_images(2, 32, 32)
    results = list(corruptions.generate(images, 7, ["contrast", "impulse_noise"]))
    assert [(name, severity) for name, severity, _ in results] == [
        (name, severity) for name in ("contrast", "impulse_noise") for severity in range(1, 6)
    ]
    (_, _, alone), *_ = corruptions.generate(images, 7, ["impulse_noise"])
    np.testing.assert_array_equal(alone, results[5][2])
    (_, _, other), *_ = corruptions.generate(images, 8, ["impulse_noise"])
    assert (alone != other).any()


def test_users_register_their_own():
    @corruption(constants={"amount": (0.1, 0.2, 0.3, 0.4, 0.5)})
    def darken_in_tests(planes: jax.Array, amount: float) -> jax.Array:
        return planes - amount

    images = np.full((1, 16, 16, 3), 100, np.uint8)
    assert (corruptions.corrupt(KEY, images, "darken_in_tests", 2) == 49).all()
    assert "darken_in_tests" not in corruptions.available()  # the benchmark's
    for constants, function, message in (
        ({}, lambda planes: planes, "must be an identifier"),
        ({"amount": (1.0,)}, darken_in_tests, "must state 5 values for each .*: amount"),
        ({"other": (1.0,) * 5}, darken_in_tests, "must state 5 values"),
    ):
        with pytest.raises(ConfigError, match=message):
            corruption(constants=constants)(function)
    with pytest.raises(ConfigError, match=r"must take \(planes, ...\)"):

        @corruption(constants={})
        def wrong_in_tests(image: jax.Array) -> jax.Array: ...

    with pytest.raises(UnknownNameError):
        corruptions.corrupt(KEY, images, "wrong_in_tests", 1)


@pytest.mark.real_data
def test_real_images_change_as_much_as_by_the_reference():
    root = os.environ.get("JAXCIFAR_REAL_DATA")
    if not root:
        pytest.skip("$JAXCIFAR_REAL_DATA names no image folder")
    paths = sorted(pathlib.Path(root, "test").glob("*/*"))[::25]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    names = [name for name in REFERENCE if name != "frost" or photographs.are_installed()]
    for name, severity, corrupted in corruptions.generate(images, 0, names):
        expected = REFERENCE[name][severity - 1]
        difference = abs(corrupted.astype(int) - images).mean()
        assert abs(difference - expected) < 0.05 * expected + 0.1, f"{name} {severity}"
