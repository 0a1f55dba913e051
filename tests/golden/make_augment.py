"""Writes augment.npz: torchvision's transforms on uint8 tensors, for tests/test_augment_*.py.

python tests/golden/make_augment.py     needs torch and torchvision 0.28

A case is (operation, image set, arguments), in this library's units: fills, erased values and
solarize's threshold in [0, 1], shears of shear_x and shear_y as factors.
"""

import importlib
import json
import math
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch_reference

torch_reference.torchvision()
transforms = importlib.import_module("torchvision.transforms.v2")
F = transforms.functional

SETS = ("square", "oblong")
ANGLES = (0.0, 7.0, -7.0, 30.0, 45.0, 90.0, 180.0, 270.0, 123.4)
FACTORS = (0.0, 0.02, 0.04, 0.1, 0.2, -0.2, 0.3, -0.33, 0.99)
PIXELS = (0, 1, -3, 14, -31, 32)
BLENDS = (0.0, 0.3, 0.9, 1.0, 1.1, 2.0, 5.0)
AFFINE = (
    (10.0, (2, -3), 1.0, (0.0, 0.0)),
    (0.0, (0, 0), 0.5, (0.0, 0.0)),
    (0.0, (0, 0), 2.0, (0.0, 0.0)),
    (0.0, (0, 0), 1.0, (45.0, 0.0)),
    (30.0, (1, 1), 1.3, (10.0, -20.0)),
    (-170.0, (5, 0), 0.7, (30.0, 5.0)),
)
CASES = {
    "hflip": [()],
    "crop": [(0, 0, 20, 28), (-3, 4, 20, 30), (5, 5, 10, 50), (14, 25, 8, 8)],
    "rotate": [
        *((angle,) for angle in ANGLES),
        (20.0, "nearest", (0.2, 0.4, 0.8)),
        (20.0, "bilinear"),
        (20.0, "bilinear", (0.2, 0.4, 0.8)),
        (20.0, "nearest", None, (5, 9)),
    ],
    "affine": [*AFFINE, (*AFFINE[4], "bilinear"), (*AFFINE[4], "bilinear", 0.6)],
    "shear_x": [(factor,) for factor in FACTORS],
    "shear_y": [(factor,) for factor in FACTORS],
    "translate_x": [(pixels,) for pixels in PIXELS],
    "translate_y": [(pixels,) for pixels in PIXELS],
    "erase": [(3, 4, 10, 5, (0.2, 0.4, 0.8)), (0, 0, 20, 28, 0.0), (19, 27, 1, 1, 1.0)],
    "adjust_brightness": [(factor,) for factor in BLENDS],
    "adjust_contrast": [(factor,) for factor in BLENDS],
    "adjust_saturation": [(factor,) for factor in BLENDS],
    "adjust_sharpness": [(factor,) for factor in BLENDS],
    "adjust_hue": [(turn,) for turn in (-0.5, -0.3, -0.1, 0.0, 0.05, 0.25, 0.5)],
    "posterize": [(bits,) for bits in (0, 1, 2, 4, 7, 8)],
    "solarize": [(threshold,) for threshold in (0.0, 0.1, 0.5, 0.6, 128 / 255, 0.9, 1.0)],
    "autocontrast": [()],
    "equalize": [()],
    "invert": [()],
    "gaussian_blur": [(3,), (5, 2.0), ((3, 7), (1.0, 3.0))],
    "resized_crop": [
        (0, 0, 20, 28, 32),
        (3, 4, 9, 11, (20, 28)),
        (2, 6, 16, 5, 16),
        (5, 0, 1, 28, 8),
        (0, 0, 20, 20, (7, 3)),
    ],
}


def make_images() -> dict[str, np.ndarray]:
    """Returns uint8 [N, H, W, 3] by set: smooth colors under a noisy red, and few or single
    levels.
    """
    rng = np.random.default_rng(0)

    def colors(height: int, width: int) -> np.ndarray:
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 5, 5)))
        fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        image = fine.clamp(0, 255).byte().permute(1, 2, 0).numpy()
        image[..., 0] = rng.integers(0, 256, (height, width))
        return image

    special = np.zeros((32, 32, 3), np.uint8)
    special[..., 0] = 77  # one level
    special[:, 16:, 1] = 200  # two levels
    special[..., 2] = rng.choice([3, 90, 91, 255], (32, 32), p=[0.9, 0.05, 0.04, 0.01])
    return {
        "square": np.stack([colors(32, 32), special]),
        "oblong": np.stack([colors(20, 28)]),
    }


def reference(name: str, images: torch.Tensor, arguments: tuple) -> torch.Tensor:
    """Returns torchvision's output for images uint8 [N, 3, H, W]."""

    def filled(values: tuple, place: int) -> list:
        values = [list(value) if isinstance(value, tuple) else value for value in values]
        if len(values) > place and values[place] is not None:
            values[place] = (255 * np.atleast_1d(values[place])).tolist()
        return values

    if name in ("rotate", "affine"):
        values = filled(arguments, 2 if name == "rotate" else 5)
        if name == "rotate" and len(values) > 3:
            return F.rotate(images, values[0], values[1], fill=values[2], center=values[3])
        if name == "rotate" and len(values) > 2:
            return F.rotate(images, values[0], values[1], fill=values[2])
        return getattr(F, name)(images, *values)
    if name.startswith("shear"):
        shear = [0.0, 0.0]
        shear["xy".index(name[-1])] = math.degrees(math.atan(arguments[0]))
        return F.affine(images, 0.0, [0, 0], 1.0, shear, center=[0, 0])
    if name.startswith("translate"):
        move = [0, 0]
        move["xy".index(name[-1])] = arguments[0]
        return F.affine(images, 0.0, move, 1.0, [0.0, 0.0])
    if name == "erase":
        *box, value = arguments
        color = torch.from_numpy(np.broadcast_to(255 * np.array(value), 3).round().astype(np.uint8))
        return F.erase(images, *box, color[:, None, None])
    if name == "solarize":
        return F.solarize(images, 255 * arguments[0])
    if name == "resized_crop" and isinstance(arguments[-1], int):  # F would resize the short side
        arguments = (*arguments[:-1], (arguments[-1],) * 2)
    if name == "hflip":
        return F.horizontal_flip(images)
    return getattr(F, name)(
        images, *(list(value) if isinstance(value, tuple) else value for value in arguments)
    )


def make_policies(images: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """Returns the policies' tables, and every operation's output at one magnitude and its negative:
    [operations, N, 3, H, W].
    """
    spaces = {
        "standard": (transforms.AutoAugment._AUGMENTATION_SPACE, (10, 31)),
        "wide": (transforms.TrivialAugmentWide._AUGMENTATION_SPACE, (31,)),
        "augmix": (transforms.AugMix._AUGMENTATION_SPACE, (10,)),
    }
    tables = {}
    for space, (operations, all_bins) in spaces.items():
        for bins in all_bins:
            tables[f"magnitudes {space} {bins}"] = [
                [name, signed, [] if levels is None else [float(level) for level in levels]]
                for name, (make, signed) in operations.items()
                for levels in [make(bins, 20, 28)]
            ]
    tables["operations"] = {
        "wide": [*transforms.RandAugment._AUGMENTATION_SPACE],
        "augmix": [*transforms.AugMix._AUGMENTATION_SPACE],
    }
    assert tables["operations"]["wide"] == [*transforms.TrivialAugmentWide._AUGMENTATION_SPACE]
    policies = transforms.AutoAugmentPolicy
    for policy in (policies.CIFAR10, policies.SVHN, policies.IMAGENET):
        tables[f"policy {policy.value}"] = transforms.AutoAugment(policy)._policies
    rand, mixing = transforms.RandAugment(), transforms.AugMix()
    applied, outputs = [], []
    for name, (make, signed) in transforms.AutoAugment._AUGMENTATION_SPACE.items():
        levels = make(31, 20, 28)
        for sign in (1, -1) if signed else (1,):
            level = 0.0 if levels is None else sign * float(levels[7])
            for method in (rand, mixing) if signed else (rand,):
                applied.append([name, level, "nearest" if method is rand else "bilinear"])
                outputs.append(
                    method._apply_image_or_video_transform(
                        images, name, level, method.interpolation, {torch.Tensor: None}
                    )
                )
    tables["applied"] = applied
    return tables, torch.stack(outputs)


def main() -> None:
    images = make_images()
    tensors = {
        name: torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
        for name, array in images.items()
    }
    cases, outputs = [], {}
    for name, all_arguments in CASES.items():
        for arguments in all_arguments:
            for which in SETS:
                outputs[f"out{len(cases)}"] = (
                    reference(name, tensors[which], arguments).permute(0, 2, 3, 1).numpy()
                )
                cases.append([name, which, arguments])
    tables, applied = make_policies(tensors["oblong"])
    np.savez_compressed(
        pathlib.Path(__file__).parent / "augment.npz",
        cases=json.dumps(cases),
        tables=json.dumps(tables),
        applied=applied.permute(0, 1, 3, 4, 2).numpy(),
        **images,
        **outputs,
    )


if __name__ == "__main__":
    main()
