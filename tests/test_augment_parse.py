import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcifar import augment
from jaxcifar import config as config_lib
from jaxcifar.augment.parse import read
from jaxcifar.augment.registry import MEAN, Color, transform
from jaxcifar.spec import ConfigError, Probability

PART3 = (
    "random_crop(32, padding=4) | random_flip | randaugment(2, 7) | "
    "color_jitter(0.2, 0.2, 0.2, 0.1) | random_rotation(10) | random_erasing(0.05)"
)


def test_reads_names_values_and_order():
    text = """random_crop(32, padding = (1, 2),padding_mode='edge')|hflip()
        | color_jitter(.2, (0.5, 1.5), hue=1e-1) | random_affine(-0.0, translate=None,)
        | rotate(-3) | random_erasing(value="random") | cutout((8))"""
    assert read(text) == [
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
    ("text", "message", "shown"),
    [
        ("rotat(10)", "there is no transform 'rotat'; did you mean rotate? known: ", "rotat"),
        ("flip", "there is no transform 'flip'; did you mean random_flip? known: ", "flip"),
        ("random_crop(", "'(' was never closed", "random_crop("),
        ("random_crop(32", "'(' was never closed", "random_crop("),
        ("random_crop(32))", "unmatched ')'", "(32))"),
        ("randaugment(2, 99)", "magnitude=99 must be less than num_magnitude_bins=31", "99)"),
        ("randaugment(2, 9, 8)", "magnitude=9 must be less than num_magnitude_bins=8", "8)"),
        ("hflip | solarize(foo=1)", "it takes threshold (a number in [0, 1])", "solarize(foo=1"),
        ("hflip | normalize | invert", "always follows augmentation", "hflip | normalize"),
        ("normalize(0.5, 0.5)", "always follows augmentation", "normalize"),
        ("hflip |", "unexpected end of the string; expected: name |", "hflip |"),
        ("| hflip", "unexpected '|'", "|"),
        ("hflip invert", "unexpected 'invert'; expected: name |", "hflip invert"),
        ("hflip, invert", "expected a transform's name, as in: name |", "invert"),
        ("hflip + invert | hflip", "expected a transform's name", "hflip + invert"),
        ("'hflip'", "expected a transform's name", "'hflip'"),
        ("hflip()()", "expected a transform's name", "hflip()"),
        ("random_crop(32,, 4)", "unexpected ','", "(32,,"),
        ("random_crop(32 4)", "Perhaps you forgot a comma?", "(32 4"),
        ("random_flip(p=2)", "p=2 is not valid: it must be a number in [0, 1]", "p=2"),
        ("random_flip(p=True)", "p=True is not valid: it must be a number in [0, 1]", "p=True"),
        ("random_flip(0.5, p=1)", "p is set twice", "0.5, p=1"),
        ("random_flip(p=0.5, p=1)", "p is set twice", "0.5, p=1"),
        ("random_flip(0.5, 1)", "too many values for random_flip", "0.5, 1"),
        ("hflip(1)", "it takes no arguments", "hflip(1"),
        ("random_crop(size=3, 4)", "positional argument follows keyword argument", "size=3, 4)"),
        ("random_crop(2.5)", "size=2.5 is not valid: it must be an integer", "2.5"),
        ("random_crop(32, (1, 2, 3))", "a tuple of 2 or 4", "(1, 2, 3)"),
        ("random_rotation", "random_rotation needs degrees", "random_rotation"),
        ("random_rotation((10, -10))", "or a range (low, high)", "(10, -10)"),
        ("color_jitter(hue=0.7)", "a number in [0, 0.5]", "hue=0.7"),
        ("autoaugment(cifar10)", "a string needs quotes: 'cifar10'", "(cifar10"),
        ("autoaugment('mnist')", "one of 'cifar10', 'svhn', 'imagenet'", "'mnist'"),
        ("augmix(depth=0)", "1 to 10, or -1", "depth=0"),
        ("augmix(alpha=0)", "a number above 0", "alpha=0"),
        ("gaussian_blur(4)", "an odd integer", "(4"),
        ("random_affine(10, scale=(0, 1))", "a range (low, high) above 0", "(0, 1)"),
        ("random_flip(3e)", "invalid decimal literal", "random_flip(3"),
        ("random_flip(1e999)", "must be a number in [0, 1]", "1e999"),
        (f"rotate({10**400})", "must be a number", f"{10**400}"),
        ("autoaugment('svhn)", "unterminated string literal", "autoaugment('"),
        ("hflip; invert", "unexpected ';'", "hflip;"),
        ("hflip # then\n| invert", "unexpected '#'", "hflip #"),
        ("hflip \0", "unexpected '\\x00'", "hflip"),
        ("hflip \udc80", "unexpected '\\udc80'", "hflip"),
        ("hflip(__import__('os'))", "too many values for hflip", "__import__('os')"),
        ("autoaugment(policy=open('x'))", "autoaugment's policy must be a literal", "open('x')"),
        ("autoaugment(*('svhn',))", "autoaugment's policy must be a literal value", "*('svhn',)"),
        ("autoaugment(**{'policy': 'svhn'})", "no parameter '**'", "'svhn'}"),
        ("random_flip({[]})", "random_flip's p must be a literal value", "({[]}"),
    ],
)
def test_invalid_strings_raise_with_their_position(text, message, shown):
    with pytest.raises(ConfigError) as caught:
        augment.parse(text)
    error, location = str(caught.value).split("\n")
    assert error.startswith("augment: ")
    assert message in error
    assert location.endswith(f"{shown} <-- here")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("autoaugment('日本') | hflip", "autoaugment('日本'"),  # a value
        ("hflip | autoaugment(é='日本', policy=1)", "hflip | autoaugment(é='日本'"),  # a parameter
        ("日本 | hflip", "日本"),  # a name
        ("autoaugment('日本' 'ü', x y)", "autoaugment('日本' 'ü', x y"),  # syntax
        ("hflip | cutout('é', €)", "hflip | cutout('é', €"),  # a character
        ("autoaugment('日本' | é('ü'", "autoaugment('日本' | é("),  # a bracket
        ("\n  hflip |\n\trotat(1,\n2) |\n invert", "hflip | rotat"),
        ("hflip\n| random_flip('é',\r\n  0.5) |\n invert", "hflip | random_flip('é'"),
        ("hflip\n  | invert\n  invert\n| hflip", "hflip | invert invert"),
    ],
)
def test_positions_are_exact_in_any_script_and_across_lines(text, shown):
    with pytest.raises(ConfigError) as caught:
        augment.parse(text)
    assert str(caught.value).split("\n")[1:] == [f"  {shown} <-- here"]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "random_flip(" + "[" * 100_000,
        "random_flip(" + "-" * 100_000 + "1)",
        "random_flip(1" + "+1" * 100_000 + ")",
        "hflip" + "()" * 100_000,
        "hflip|" * 100_000 + "hflip",
    ],
    ids=lambda text: text[:14],
)
def test_too_deeply_nested_strings_raise(text):
    with pytest.raises(ConfigError, match=r"^augment: .*nested"):
        augment.parse(text)


def test_unknown_name_lists_known_names():
    with pytest.raises(ConfigError) as caught:
        augment.parse("blur")
    assert all(name in str(caught.value) for name in augment.TRANSFORMS)


@pytest.mark.parametrize("name", augment.TRANSFORMS)
def test_every_transform_is_exported_and_has_valid_defaults(name):
    entry = augment.TRANSFORMS[name]
    assert getattr(augment, name) is entry.function
    assert name in augment.__all__
    assert all(p.is_required or p.accepts(p.default) for p in entry.parameters.values())


def test_user_transform_works_in_a_string_and_is_checked():
    @transform("tint_in_tests")  # as in a config file
    def tint(key: jax.Array, image: jax.Array, p: Probability, color: Color = MEAN) -> jax.Array:
        return jnp.where(jax.random.uniform(key) < p, jnp.asarray(color), image)

    key, image = jax.random.key(0), jnp.zeros((4, 4, 3))
    pipeline = augment.parse("hflip | tint_in_tests(1)", mean=(0.1, 0.2, 0.3))
    np.testing.assert_allclose(pipeline(key, image)[1, 1], (0.1, 0.2, 0.3), rtol=1e-6)
    pipeline = augment.parse("tint_in_tests(p=1, color=0.5)")
    np.testing.assert_array_equal(pipeline(key, image), image + 0.5)
    np.testing.assert_array_equal(tint(key, image, 1, (0.5, 0.5, 0.5)), image + 0.5)
    for text, message in (
        ("tint_in_tests", "needs p: a number in [0, 1]"),
        ("tint_in_tests(2)", "p=2 is not valid: it must be a number in [0, 1]"),
        ("tint_in_tests(1, (1, 0))", "a number in [0, 1], or three numbers in [0, 1]"),
        ("tint(1)", "did you mean tint_in_tests?"),
    ):
        with pytest.raises(ConfigError) as caught:
            augment.parse(text)
        assert message in str(caught.value)
    with pytest.raises(ConfigError, match=r"p=1\.5 is not valid"):
        tint(key, image, 1.5)


def test_registering_a_non_transform_raises():
    def reversed_arguments(image: jax.Array, key: jax.Array) -> jax.Array:
        return image

    def without_image(key: jax.Array) -> jax.Array:
        return key

    def unannotated(key, image, p=0.5):
        return image

    for function in (reversed_arguments, without_image):
        with pytest.raises(ConfigError, match=r"must take \(image, \.\.\.\) or"):
            transform(function)
    with pytest.raises(ConfigError, match="parameter 'p' needs an annotation"):
        transform(unannotated)


def test_each_transform_in_a_string_has_its_own_key():
    image = jax.random.uniform(jax.random.key(1), (8, 8, 3))
    pipeline = augment.parse("cutout(3, 0.5) | invert | random_flip")

    def by_hand(key):
        cut = augment.cutout(jax.random.fold_in(key, 0), image, 3, 0.5)
        return augment.random_flip(jax.random.fold_in(key, 2), 1 - cut)

    both = jax.jit(jax.vmap(lambda key: (pipeline(key, image), by_hand(key))))
    ours, expected = both(jax.random.split(jax.random.key(2), 32))
    np.testing.assert_array_equal(ours, expected)  # nothing is rounded but 1 - x
    np.testing.assert_array_equal(augment.parse("")(jax.random.key(0), image), image)


def test_erasing_fills_with_the_mean_by_default():
    image = jnp.ones((16, 16, 3))
    for text, value in (
        ("cutout(32)", (0.1, 0.2, 0.3)),
        ("random_erasing(1, (0.5, 0.5), (1, 1)) | crop(7, 7, 2, 2)", (0.1, 0.2, 0.3)),
        ("cutout(32, 0.5)", (0.5, 0.5, 0.5)),
    ):
        result = jax.jit(augment.parse(text, mean=(0.1, 0.2, 0.3)))(jax.random.key(0), image)
        np.testing.assert_allclose(result[1, 1], value, rtol=1e-6)


def test_part3_augmentation_depends_on_the_key_but_not_on_the_batch_position():
    transform = jax.jit(jax.vmap(augment.parse(PART3)))
    images = jnp.broadcast_to(jax.random.uniform(jax.random.key(0), (32, 32, 3)), (8, 32, 32, 3))
    keys = jax.random.split(jax.random.key(1), 8)
    results = np.asarray(transform(keys, images))
    assert results.dtype == np.float32
    assert results.shape == images.shape
    assert results.min() >= 0
    assert results.max() <= 1
    assert len({image.tobytes() for image in results}) == 8
    order = np.array([3, 1, 7, 0, 5, 6, 2, 4])
    # float32's rounding, in case vector registers hold the images of a batch in groups
    np.testing.assert_allclose(transform(keys[order], images), results[order], atol=1e-5)


def test_config_validates_augment_and_mixing():
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
def test_mixing_keys_are_range_checked(name, value):
    config = config_lib.default()
    with pytest.raises(ConfigError, match=name):
        config_lib.override(config, name, str(value))
        config_lib.validate(config)


def test_views_need_augmix_once():
    for text in ("", "random_flip", "augmix | augmix"):
        with pytest.raises(ConfigError, match="must have augmix once"):
            augment.parse_views(text)
