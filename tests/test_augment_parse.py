import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcifar import augment
from jaxcifar import config as config_lib
from jaxcifar.augment.parse import REQUIRED, TRANSFORMS, read
from jaxcifar.config import ConfigError

PART3 = (
    "random_crop(32, padding=4) | random_flip | randaugment(2, 7) | "
    "color_jitter(0.2, 0.2, 0.2, 0.1) | random_rotation(10) | random_erasing(0.05)"
)


def test_reads_names_values_and_order():
    line = """random_crop(32, padding = (1, 2),padding_mode='edge')|hflip()
        | color_jitter(.2, (0.5, 1.5), hue=1e-1) | random_affine(-0.0, translate=None,)
        | rotate(-3) | random_erasing(value="random") | cutout((8))"""
    assert read(line) == [
        ("random_crop", {"size": 32, "padding": (1, 2), "padding_mode": "edge"}),
        ("hflip", {}),
        ("color_jitter", {"brightness": 0.2, "contrast": (0.5, 1.5), "hue": 0.1}),
        ("random_affine", {"degrees": 0.0, "translate": None}),
        ("rotate", {"angle": -3}),
        ("random_erasing", {"value": "random"}),
        ("cutout", {"size": 8}),
    ]
    assert read("") == read(" \n") == []


@pytest.mark.parametrize(
    ("line", "said", "shown"),
    [
        ("rotat(10)", "there is no transform 'rotat'; did you mean rotate? known are", "rotat"),
        ("random_crop(", "a value for random_crop's size is expected, not the end", "random_crop("),
        ("randaugment(2, 99)", "magnitude=99 must be less than num_magnitude_bins=31", "99)"),
        ("randaugment(2, 9, 8)", "magnitude=9 must be less than num_magnitude_bins=8", "8)"),
        ("hflip | solarize(foo=1)", "it takes threshold (a number in [0, 1])", "| solarize(foo"),
        ("hflip | normalize | invert", "always follows augmentation", "hflip | normalize"),
        ("normalize(0.5, 0.5)", "always follows augmentation", "normalize"),
        ("hflip |", "a transform's name is expected, not the end", "hflip |"),
        ("| hflip", "a transform's name is expected, not '|'", "|"),
        ("hflip invert", "'|' is expected, not 'invert'", "hflip invert"),
        ("random_crop(32,, 4)", "a value for random_crop's padding is expected", "(32,,"),
        ("random_crop(32 4)", "',' or the ')' of random_crop is expected, not 4", "(32 4"),
        ("random_flip(p=2)", "p=2 must be a number in [0, 1]", "p=2"),
        ("random_flip(p=True)", "p=True must be a number in [0, 1]", "p=True"),
        ("random_flip(0.5, p=1)", "p is given twice", "0.5, p"),
        ("random_flip(0.5, 1)", "1 is one value too many", "0.5, 1"),
        ("hflip(1)", "it takes none", "hflip(1"),
        ("random_crop(size=3, 4)", "values without a name come before", "size=3, 4"),
        ("random_crop(2.5)", "size=2.5 must be a whole number", "2.5"),
        ("random_crop(32, (1, 2, 3))", "a tuple of 2 or 4", "(1, 2, 3)"),
        ("random_rotation", "random_rotation needs degrees", "random_rotation"),
        ("random_rotation((10, -10))", "or a range (low, high)", "(10, -10)"),
        ("color_jitter(hue=0.7)", "a number in [0, 0.5]", "hue=0.7"),
        ("autoaugment(cifar10)", "a text needs quotes: 'cifar10'", "(cifar10"),
        ("autoaugment('mnist')", "one of 'cifar10', 'svhn', 'imagenet'", "'mnist'"),
        ("augmix(depth=0)", "1 to 10, or -1", "depth=0"),
        ("augmix(alpha=0)", "a number above 0", "alpha=0"),
        ("gaussian_blur(4)", "an odd whole number", "(4"),
        ("random_affine(10, scale=(0, 1))", "a range (low, high) above 0", "(0, 1)"),
        ("random_flip(3e)", "'3e' is not a number", "3e"),
        ("random_flip(1e999)", "must be a number in [0, 1]", "1e999"),
        ("hflip; invert", "';' does not belong here", "hflip;"),
        ("hflip(__import__('os'))", "is one value too many", "__import__"),
        ("autoaugment(policy=open('x'))", "a value for autoaugment's policy is expected", "open"),
    ],
)
def test_mistakes_are_pointed_at(line, said, shown):
    with pytest.raises(ConfigError) as caught:
        augment.parse(line)
    message, place = str(caught.value).split("\n")
    assert message.startswith("augment: ")
    assert said in message
    assert place.endswith(f"{shown} <-- here")


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError) as caught:
        augment.parse("blur")
    assert all(name in str(caught.value) for name in TRANSFORMS)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_table_has_the_functions_parameters_and_defaults(name):
    parameters = inspect.signature(getattr(augment, name)).parameters
    own = {
        parameter: details.default
        for parameter, details in parameters.items()
        if parameter not in ("key", "image")
    }
    assert own == {parameter: spec.default for parameter, spec in TRANSFORMS[name].items()}
    assert all(
        spec.default is REQUIRED or spec.check(spec.default) for spec in TRANSFORMS[name].values()
    )


def test_everything_is_exported():
    assert {"parse", "mixup", "cutmix", *TRANSFORMS} == set(augment.__all__) == set(dir(augment))
    with pytest.raises(AttributeError, match="rotat"):
        _ = augment.rotat


def test_a_line_is_its_transforms_each_with_a_key_of_its_own():
    image = jax.random.uniform(jax.random.key(1), (32, 32, 3))
    key = jax.random.key(2)
    ours = jax.jit(augment.parse("random_rotation(30) | invert | random_flip"))(key, image)
    expected = augment.random_rotation(jax.random.fold_in(key, 0), image, 30)
    expected = augment.random_flip(jax.random.fold_in(key, 2), 1 - expected)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    np.testing.assert_array_equal(augment.parse("")(key, image), image)


def test_mean_is_what_erasing_paints_with_unless_told():
    image = jnp.ones((16, 16, 3))
    for line, value in (
        ("cutout(32)", (0.1, 0.2, 0.3)),
        ("random_erasing(1, (0.5, 0.5), (1, 1)) | crop(7, 7, 2, 2)", (0.1, 0.2, 0.3)),
        ("cutout(32, 0.5)", (0.5, 0.5, 0.5)),
    ):
        result = jax.jit(augment.parse(line, mean=(0.1, 0.2, 0.3)))(jax.random.key(0), image)
        np.testing.assert_allclose(result[1, 1], value, rtol=1e-6)


def test_part3s_line_differs_for_every_image_but_not_with_the_batch():
    transform = jax.jit(jax.vmap(augment.parse(PART3)))
    images = jnp.broadcast_to(jax.random.uniform(jax.random.key(0), (32, 32, 3)), (16, 32, 32, 3))
    keys = jax.random.split(jax.random.key(1), 16)
    together = np.asarray(transform(keys, images))
    assert together.dtype == np.float32
    assert together.shape == images.shape
    assert together.min() >= 0
    assert together.max() <= 1
    assert len({image.tobytes() for image in together}) == 16
    apart = np.concatenate([transform(keys[k : k + 4], images[:4]) for k in (0, 4, 8, 12)])
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_reading_needs_no_jax():
    code = (
        "import sys; from jaxcifar.augment import parse; parse('random_flip | augmix'); "
        "assert not {'jax', 'torch', 'tensorflow', 'dm_pix'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_config_checks_the_line_and_the_mixing():
    config = config_lib.default()
    config.augment = PART3
    config.mixup.prob, config.cutmix.prob = 0.5, 0.5
    config_lib.validate(config)
    config.cutmix.prob = 0.6
    with pytest.raises(ConfigError, match="sum to more than 1"):
        config_lib.validate(config)
    config.cutmix.prob = 0.5
    config.augment = "hflip | rotat(10)"
    with pytest.raises(ConfigError, match=r"config\.augment: there is no transform 'rotat'"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("name", "value"), [("mixup.prob", 1.5), ("mixup.alpha", 0.0), ("cutmix.alpha", -1.0)]
)
def test_mixing_keys_have_ranges(name, value):
    config = config_lib.default()
    with pytest.raises(ConfigError, match=name):
        config_lib.override(config, name, str(value))
        config_lib.validate(config)
