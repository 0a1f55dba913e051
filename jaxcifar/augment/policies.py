"""Automatic augmentation: RandAugment, AutoAugment, TrivialAugment and AugMix, with the operations,
magnitudes, signs and probabilities of torchvision 0.28.

Every image of a batch draws its own operation. Under vmap, `lax.switch` runs every branch on the
whole batch, each with its own pass over the images. Here operations share formulas instead: the
geometric ones are one gather through one matrix, four photometric ones are one blend, and the rest
is pointwise except for one histogram and the channels' minima and maxima.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.augment import color, geometry
from jaxcifar.augment.registry import transform
from jaxcifar.augment.sampling import uniform_to_index
from jaxcifar.spec import ConfigError, NonNegativeInt, PositiveFloat, between, described

NumBins = Annotated[int, between(2, 1000)]
OneToTen = Annotated[int, between(1, 10)]
Depth = Annotated[
    int,
    described(
        "an integer, 1 to 10, or -1 for 1 to 3 at random",
        lambda value: value == -1 or 1 <= value <= 10,
    ),
]

_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_BLENDS = ("Brightness", "Contrast", "Color", "Sharpness")
_SIGNED = (*_GEOMETRIC, *_BLENDS)
OPS = ("Identity", *_SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
OP_INDEX = {name: index for index, name in enumerate(OPS)}

# Operations to sample from, as indices into OPS.
WIDE_OPS = np.array([OP_INDEX[name] for name in OPS if name != "Invert"])
AUGMIX_OPS = np.array([OP_INDEX[name] for name in OPS if name not in ("Identity", "Invert")])

_AUTOAUGMENT_BINS = _AUGMIX_BINS = 10

# A policy's 25 sub-policies, separated by ";": two of (operation, probability, magnitude bin).
_POLICIES = {
    "cifar10": """
        Invert .1 0, Contrast .2 6; Rotate .7 2, TranslateX .3 9; Sharpness .8 1, Sharpness .9 3;
        ShearY .5 8, TranslateY .7 9; AutoContrast .5 0, Equalize .9 0;
        ShearY .2 7, Posterize .3 7; Color .4 3, Brightness .6 7;
        Sharpness .3 9, Brightness .7 9; Equalize .6 0, Equalize .5 0;
        Contrast .6 7, Sharpness .6 5; Color .7 7, TranslateX .5 8;
        Equalize .3 0, AutoContrast .4 0; TranslateY .4 3, Sharpness .2 6;
        Brightness .9 6, Color .2 8; Solarize .5 2, Invert .0 0;
        Equalize .2 0, AutoContrast .6 0; Equalize .2 0, Equalize .6 0;
        Color .9 9, Equalize .6 0; AutoContrast .8 0, Solarize .2 8; Brightness .1 3, Color .7 0;
        Solarize .4 5, AutoContrast .9 0; TranslateY .9 9, TranslateY .7 9;
        AutoContrast .9 0, Solarize .8 3; Equalize .8 0, Invert .1 0;
        TranslateY .7 9, AutoContrast .9 0""",
    "svhn": """
        ShearX .9 4, Invert .2 0; ShearY .9 8, Invert .7 0; Equalize .6 0, Solarize .6 6;
        Invert .9 0, Equalize .6 0; Equalize .6 0, Rotate .9 3; ShearX .9 4, AutoContrast .8 0;
        ShearY .9 8, Invert .4 0; ShearY .9 5, Solarize .2 6; Invert .9 0, AutoContrast .8 0;
        Equalize .6 0, Rotate .9 3; ShearX .9 4, Solarize .3 3; ShearY .8 8, Invert .7 0;
        Equalize .9 0, TranslateY .6 6; Invert .9 0, Equalize .6 0; Contrast .3 3, Rotate .8 4;
        Invert .8 0, TranslateY .0 2; ShearY .7 6, Solarize .4 8; Invert .6 0, Rotate .8 4;
        ShearY .3 7, TranslateX .9 3; ShearX .1 6, Invert .6 0; Solarize .7 2, TranslateY .6 7;
        ShearY .8 4, Invert .8 0; ShearX .7 9, TranslateY .8 3; ShearY .8 5, AutoContrast .7 0;
        ShearX .7 2, Invert .1 0""",
    "imagenet": """
        Posterize .4 8, Rotate .6 9; Solarize .6 5, AutoContrast .6 0;
        Equalize .8 0, Equalize .6 0; Posterize .6 7, Posterize .6 6;
        Equalize .4 0, Solarize .2 4; Equalize .4 0, Rotate .8 8; Solarize .6 3, Equalize .6 0;
        Posterize .8 5, Equalize 1 0; Rotate .2 3, Solarize .6 8; Equalize .6 0, Posterize .4 6;
        Rotate .8 8, Color .4 0; Rotate .4 9, Equalize .6 0; Equalize .0 0, Equalize .8 0;
        Invert .6 0, Equalize 1 0; Color .6 4, Contrast 1 8; Rotate .8 8, Color 1 2;
        Color .8 8, Solarize .8 7; Sharpness .4 7, Invert .6 0; ShearX .6 5, Equalize 1 0;
        Color .4 0, Equalize .6 0; Equalize .4 0, Solarize .2 4;
        Solarize .6 5, AutoContrast .6 0; Invert .6 0, Equalize 1 0; Color .6 4, Contrast 1 8;
        Equalize .8 0, Equalize .6 0""",
}


def _check_magnitude(*, magnitude: int, num_magnitude_bins: int, **_) -> None:
    if magnitude >= num_magnitude_bins:
        raise ConfigError(
            f"magnitude={magnitude!r} must be less than num_magnitude_bins={num_magnitude_bins!r}"
        )


@transform("randaugment", check=_check_magnitude)
def randaugment(
    key: jax.Array,
    image: jax.Array,
    num_ops: Annotated[int, between(0, 20)] = 2,
    magnitude: NonNegativeInt = 9,
    num_magnitude_bins: NumBins = 31,
) -> jax.Array:
    """Applies operations to an image [H, W, 3], each drawn from 14 (RandAugment; Cubuk et al. 2019,
    arXiv:1909.13719).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        num_ops: how many, drawn independently.
        magnitude: their strength, 0 to num_magnitude_bins - 1.
        num_magnitude_bins: the number of magnitudes.
    """
    _check_magnitude(magnitude=magnitude, num_magnitude_bins=num_magnitude_bins)
    levels = magnitudes("standard", num_magnitude_bins, *image.shape[:2])[:, magnitude]
    draws = jax.random.uniform(key, (2, num_ops))
    ops = _pick(WIDE_OPS, draws[0])
    return _apply_ops(image, ops, _random_signs(ops, jnp.asarray(levels)[ops], draws[1]))


@transform(
    "autoaugment",
    examples=("autoaugment('cifar10')", "autoaugment('svhn')", "autoaugment('imagenet')"),
)
def autoaugment(
    key: jax.Array, image: jax.Array, policy: Literal["cifar10", "svhn", "imagenet"] = "cifar10"
) -> jax.Array:
    """Applies one of a policy's 25 sub-policies, of two operations each, to an image [H, W, 3]
    (AutoAugment; Cubuk et al. 2018, arXiv:1805.09501).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        policy: the dataset that the policy was learned on: "cifar10", "svhn" or "imagenet".
    """
    ops, probabilities, bins = policy_table(policy)
    levels = magnitudes("standard", _AUTOAUGMENT_BINS, *image.shape[:2])[ops, bins]
    draws = jax.random.uniform(key, (5,))
    index = uniform_to_index(draws[0], len(ops))
    is_applied = draws[1:3] < jnp.asarray(probabilities)[index]
    ops = jnp.where(is_applied, jnp.asarray(ops)[index], OP_INDEX["Identity"])
    return _apply_ops(image, ops, _random_signs(ops, jnp.asarray(levels)[index], draws[3:5]))


@transform
def trivial_augment(
    key: jax.Array, image: jax.Array, num_magnitude_bins: NumBins = 31
) -> jax.Array:
    """Applies one operation of random magnitude to an image [H, W, 3] (TrivialAugmentWide; Müller &
    Hutter 2021, arXiv:2103.10158).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        num_magnitude_bins: the number of magnitudes.
    """
    levels = magnitudes("wide", num_magnitude_bins, *image.shape[:2])
    draws = jax.random.uniform(key, (3, 1))
    op = _pick(WIDE_OPS, draws[0])
    level = jnp.asarray(levels)[op, uniform_to_index(draws[1], num_magnitude_bins)]
    return _apply_ops(image, op, _random_signs(op, level, draws[2]))


@transform
def augmix(
    key: jax.Array,
    image: jax.Array,
    severity: OneToTen = 3,
    width: OneToTen = 3,
    depth: Depth = -1,
    alpha: PositiveFloat = 1.0,
) -> jax.Array:
    """Mixes an image [H, W, 3] with several chains of operations on it (AugMix; Hendrycks et al.
    2019, arXiv:1912.02781; torchvision's, with all operations and bilinear interpolation).

    Args:
        key: a PRNG key.
        image: float32 [H, W, 3] in [0, 1].
        severity: magnitudes are sampled from the lowest `severity` of 10.
        width: the number of chains.
        depth: operations in a chain; -1 draws 1, 2 or 3 for each.
        alpha: of the Dirichlet distribution of the chains' weights, and of the Beta distribution
            of the original image's.
    """
    levels = jnp.asarray(magnitudes("augmix", _AUGMIX_BINS, *image.shape[:2]))
    image_key, weight_key, depth_key, chain_key = jax.random.split(key, 4)
    max_depth = depth if depth > 0 else 3
    depths = max_depth
    if depth == -1:
        depths = 1 + uniform_to_index(jax.random.uniform(depth_key, (width, 1)), 3)
    draws = jax.random.uniform(chain_key, (3, width, max_depth))
    is_applied = np.arange(max_depth) < depths
    ops = jnp.where(is_applied, _pick(AUGMIX_OPS, draws[0]), OP_INDEX["Identity"])
    levels = _random_signs(ops, levels[ops, uniform_to_index(draws[1], severity)], draws[2])
    chains = jax.vmap(lambda ops, levels: _apply_ops(image, ops, levels, "bilinear"))(ops, levels)
    image_weight, mix_weight = jax.random.dirichlet(image_key, jnp.full(2, alpha))
    weights = mix_weight * jax.random.dirichlet(weight_key, jnp.full(width, alpha))
    return image_weight * image + (weights[:, None, None, None] * chains).sum(0)


def _apply_ops(
    image: jax.Array, ops: jax.Array, levels: jax.Array, interpolation: str = "nearest"
) -> jax.Array:
    """Applies N operations to an image [H, W, 3] in turn; ops and levels are [N].

    In a loop, because it keeps its image in memory between operations. Unrolled, XLA on the CPU
    recomputes it at each use, and so on down the chain: a jitter after two operations took 20 times
    as long.
    """

    def step(planes: jax.Array, op_and_level: tuple) -> tuple[jax.Array, None]:
        return apply_op(planes, *op_and_level, interpolation), None

    planes, _ = jax.lax.scan(step, geometry.to_planes(image), (ops, levels))
    return jnp.moveaxis(planes, 0, -1)


def apply_op(
    planes: jax.Array, op: jax.Array, level: jax.Array, interpolation: str = "nearest"
) -> jax.Array:
    """Returns planes [3, H, W] after the operation OPS[op]; `op` and `level` may be traced.

    The level is the operation's magnitude with its sign: a factor for shears, pixels (truncated),
    degrees, the factor of a blend minus 1, bits, or a threshold in [0, 1].
    """

    def value_for(name: str, value: jax.Array = level, default: float = 0.0) -> jax.Array:
        return jnp.where(op == OP_INDEX[name], value, default)

    def matrix(height: int, width: int) -> tuple:
        shears = (
            geometry.shear_x_matrix(value_for("ShearX"), height),
            geometry.shear_y_matrix(value_for("ShearY"), width),
        )
        angle = value_for("Rotate")
        rotation = geometry.inverse_affine((0.0, 0.0), -angle, (0.0, 0.0), 1.0, (0.0, 0.0))
        x, y = (value_for(f"Translate{axis}", jnp.trunc(level)) for axis in "XY")
        (_, b, c, *_), (*_, d, _, f) = shears
        return (rotation[0], rotation[1] + b, c - x, rotation[3] + d, rotation[4], f - y)

    _, height, width = planes.shape
    warped = geometry.warp(planes, matrix(height, width), interpolation)
    gray = color.to_grayscale(planes)
    other = jnp.where(op == OP_INDEX["Contrast"], gray.mean(), gray)
    other = jnp.where(op == OP_INDEX["Brightness"], 0.0, other)
    other = jnp.where(op == OP_INDEX["Sharpness"], color.smooth(planes), other)
    # In whole levels: torchvision's 0.4 is slightly above 102 / 255, and leaves the level 102 alone
    threshold = jnp.ceil(255 * value_for("Solarize", default=2.0)) / 255
    threshold = jnp.where(op == OP_INDEX["Invert"], 0.0, threshold)
    results = {
        _GEOMETRIC: warped,
        _BLENDS: color.blend(planes, other, 1 + level),
        ("Posterize",): color.posterize_planes(planes, value_for("Posterize", default=8.0)),
        ("Solarize", "Invert"): color.solarize(planes, threshold),
        ("AutoContrast",): color.autocontrast_planes(planes),
        ("Equalize",): color.equalize_planes(planes),
    }
    for names, result in results.items():
        planes = jnp.where(_is_among(op, names), result, planes)
    return planes


def magnitudes(space: str, bins: int, height: int, width: int) -> np.ndarray:
    """Returns the magnitudes of OPS in an augmentation space ("standard": of RandAugment and
    AutoAugment, "wide": of TrivialAugment, or "augmix"), float32 [len(OPS), bins]; 0 if an
    operation has none.
    """
    is_wide = space == "wide"
    shift = {"standard": 150 / 331, "augmix": 1 / 3}.get(space)
    ends = {
        "ShearX": 0.99 if is_wide else 0.3,
        "ShearY": 0.99 if is_wide else 0.3,
        "TranslateX": 32.0 if is_wide else shift * width,
        "TranslateY": 32.0 if is_wide else shift * height,
        "Rotate": 135.0 if is_wide else 30.0,
        **dict.fromkeys(_BLENDS, 0.99 if is_wide else 0.9),
    }
    table = np.zeros((len(OPS), bins), np.float32)
    for name, end in ends.items():
        table[OP_INDEX[name]] = _linspace(0, end, bins)
    table[OP_INDEX["Solarize"]] = _linspace(1, 0, bins)
    bits, num_dropped = {"standard": (8, 4), "wide": (8, 6), "augmix": (4, 4)}[space]
    table[OP_INDEX["Posterize"]] = np.round(bits - np.arange(bins) / ((bins - 1) / num_dropped))
    return table


def _linspace(start: float, end: float, bins: int) -> np.ndarray:
    """Returns torch.linspace's float32 values, which are computed from the nearer end: half of 32
    comes out slightly below 16, which is then a translation by 15 pixels.
    """
    end = float(np.float32(end))
    step = float(np.float32(end - start) / np.float32(bins - 1))
    index = np.arange(bins)
    values = np.where(index < bins // 2, start + step * index, end - step * index[::-1])
    return values.astype(np.float32)


def policy_table(policy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns an AutoAugment policy's operations, probabilities and bins, each [25, 2]."""
    sub_policies = [
        [operation.split() for operation in sub_policy.split(",")]
        for sub_policy in _POLICIES[policy].split(";")
    ]
    ops = np.array([[OP_INDEX[name] for name, _, _ in pair] for pair in sub_policies])
    probabilities = np.array([[p for _, p, _ in pair] for pair in sub_policies], np.float32)
    bins = np.array([[bin_ for _, _, bin_ in pair] for pair in sub_policies], np.int32)
    return ops, probabilities, bins


def _random_signs(op: jax.Array, level: jax.Array, uniform: jax.Array) -> jax.Array:
    return jnp.where(_is_among(op, _SIGNED) & (uniform < 0.5), -level, level)


def _is_among(op: jax.Array, names: tuple[str, ...]) -> jax.Array:
    return (op[..., None] == np.array([OP_INDEX[name] for name in names])).any(-1)


def _pick(values: np.ndarray, uniform: jax.Array) -> jax.Array:
    return jnp.asarray(values)[uniform_to_index(uniform, len(values))]
