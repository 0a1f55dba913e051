"""Rows of automatic augmentation: its tables, and every operation at magnitudes of both signs.

Torchvision keeps the tables in attributes of its classes whose names begin with an underscore.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxcifar.augment import policies
from jaxcifar.parity.given import jit, pictures, unit_floats
from jaxcifar.parity.rows import ABSOLUTE, EXACT, row
from jaxcifar.parity.torch_networks import channels_first, channels_last
from jaxcifar.parity.transforms import NEAREST, ROUNDING, TIES, nearest_levels
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Transforms"

v2 = import_torchvision().transforms.v2

# Our name of a space of magnitudes, the class that has it, and the numbers of bins to compare
_SPACES = (
    ("standard", v2.RandAugment, (10, 31)),
    ("standard", v2.AutoAugment, (10,)),
    ("wide", v2.TrivialAugmentWide, (31,)),
    ("augmix", v2.AugMix, (10,)),
)

_OPERATIONS = v2.RandAugment._AUGMENTATION_SPACE | v2.AutoAugment._AUGMENTATION_SPACE


def _declare_magnitudes(space: str, augmentation: type, all_bins: tuple[int, ...]) -> None:
    name = augmentation.__name__

    @row(
        f"magnitudes of {name}'s operations, with {' and '.join(map(str, all_bins))} bins",
        group=GROUP,
        against=f"torchvision.transforms.v2.{name}",
        tolerance=0,
        reason=EXACT,
        measure=ABSOLUTE,
        dtype="float32",
    )
    def magnitudes() -> tuple:
        height, width, ours, theirs = 20, 28, {}, {}
        sampled = policies.AUGMIX_OPS if space == "augmix" else policies.WIDE_OPS
        if augmentation is v2.AutoAugment:  # whose policies have all but the identity
            sampled = np.flatnonzero(np.array(policies.OPS) != "Identity")
        for bins in all_bins:
            table = policies.magnitudes(space, bins, height, width)
            ours |= {f"{policies.OPS[op]}, {bins} bins": table[op] for op in sampled}
            for operation, (make, _) in augmentation._AUGMENTATION_SPACE.items():
                levels = make(bins, height, width)
                theirs[f"{operation}, {bins} bins"] = (
                    np.zeros(bins) if levels is None else levels.numpy()
                )
        return ours, theirs


for _space in _SPACES:
    _declare_magnitudes(*_space)


@row(
    "autoaugment's three policies: operations, probabilities, magnitudes",
    group=GROUP,
    against="torchvision.transforms.v2.AutoAugmentPolicy",
    tolerance=1e-7,
    reason="probabilities are float32",
    measure=ABSOLUTE,
    dtype="float32",
)
def policy_tables() -> tuple:
    ours, theirs = {}, {}
    for policy in v2.AutoAugmentPolicy:
        ours |= dict(zip(_columns(policy), policies.policy_table(policy.value), strict=True))
        pairs = v2.AutoAugment(policy)._policies
        columns = zip(*(operation for pair in pairs for operation in pair), strict=True)
        operations, probabilities, bins = (np.reshape(c, (-1, 2)) for c in map(list, columns))
        operations = np.vectorize(policies.OP_INDEX.get)(operations)
        bins = np.vectorize(lambda index: index or 0)(bins)
        theirs |= dict(zip(_columns(policy), (operations, probabilities, bins), strict=True))
    return ours, theirs


def _columns(policy: v2.AutoAugmentPolicy) -> list[str]:
    return [f"{policy.value} {name}" for name in ("operations", "probabilities", "magnitudes")]


def _applied(names: tuple[str, ...], method: object, interpolation: str) -> tuple:
    """Returns the pictures after each of the operations at four magnitudes and their negatives."""
    images, ops, levels, expected = pictures(), [], [], []
    for name in names:
        make, is_signed = _OPERATIONS[name]
        values = make(31, *images.shape[1:3])
        values = [0.0] if values is None else [float(values[index]) for index in (1, 7, 18, 30)]
        for level in (*values, *((-value for value in values) if is_signed else ())):
            ops.append(policies.OP_INDEX[name])
            levels.append(level)
            result = method._apply_image_or_video_transform(
                channels_first(images), name, level, method.interpolation, {torch.Tensor: None}
            )
            expected.append(channels_last(result))
    apply = jax.vmap(policies.apply_op, (0, None, None, None))
    apply = jax.vmap(apply, (None, 0, 0, None))
    planes = jnp.moveaxis(unit_floats(images), -1, 1)
    results = jit(lambda *x: apply(*x, interpolation))(planes, np.array(ops), np.float32(levels))
    return 255 * np.moveaxis(np.asarray(results, np.float64), 2, -1), np.float64(expected)


GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
COLOR = ("Identity", "Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize")
COLOR += ("AutoContrast", "Equalize", "Invert")

for _what, _names, _method, _interpolation, _kind in (
    ("geometric operations", GEOMETRIC, v2.RandAugment(), "nearest", NEAREST),
    ("geometric operations, bilinear", GEOMETRIC, v2.AugMix(), "bilinear", "rounded"),
    ("color operations", COLOR, v2.RandAugment(), "nearest", "truncated"),
):

    @row(
        f"automatic augmentation's {len(_names)} {_what} at magnitudes of both signs",
        group=GROUP,
        against=f"torchvision.transforms.v2.{type(_method).__name__}",
        dtype="float32",
        **(TIES if _kind == NEAREST else ROUNDING),
    )
    def operations(names=_names, method=_method, interpolation=_interpolation, kind=_kind):
        levels, results = _applied(names, method, interpolation)
        return levels, nearest_levels(levels, results, kind)
