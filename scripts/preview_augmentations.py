"""Draws what augmentations do to a config's training images, as one labelled PNG.

python scripts/preview_augmentations.py --config=configs/part3.py --output=aug.png
                                        [--config.KEY=VALUE ...]

The first row shows original images, the next rows show samples of the config's `augment`, and then
every transform has a row to itself.
"""

import pathlib

from absl import flags

from jaxcifar import cli
from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError

_CONFIG = flags.DEFINE_string("config", None, "the experiment's file, such as configs/part3.py")
_OUTPUT = flags.DEFINE_string("output", None, "the .png file to write")

COLUMNS, SAMPLES, ZOOM, LABEL_WIDTH, GAP = 12, 4, 2, 330, 4

# One line for every transform, strong enough to be seen.
EXAMPLES = (
    "hflip",
    "crop(-4, 6, 32, 32)",
    "rotate(30)",
    "affine(20, (4, 0), 0.8, (10, 0), fill=0.5)",
    "shear_x(0.3)",
    "shear_y(0.3)",
    "translate_x(8)",
    "translate_y(8)",
    "erase(8, 4, 10, 20, (0.5, 0.5, 0.4))",
    "adjust_brightness(1.6)",
    "adjust_contrast(1.8)",
    "adjust_saturation(2.5)",
    "adjust_hue(0.25)",
    "adjust_sharpness(4)",
    "posterize(2)",
    "solarize(0.5)",
    "autocontrast",
    "equalize",
    "invert",
    "gaussian_blur(5, 1.5)",
    "random_crop(32, padding=4)",
    "random_flip",
    "color_jitter(0.4, 0.4, 0.4, 0.2)",
    "random_rotation(30)",
    "random_affine(20, (0.1, 0.1), (0.8, 1.2), 15)",
    "random_erasing(1.0)",
    "cutout(12)",
    "randaugment(2, 9)",
    "autoaugment('cifar10')",
    "autoaugment('svhn')",
    "autoaugment('imagenet')",
    "trivial_augment",
    "augmix",
)


def main(overrides: list[str]) -> int:
    """Writes the picture; returns the exit code."""
    if not _CONFIG.value:
        raise ConfigError("--config is missing: name an experiment, such as configs/part3.py")
    if not _OUTPUT.value or not _OUTPUT.value.endswith(".png"):
        raise ConfigError(f"--output={_OUTPUT.value!r} must be a file named *.png")
    config = config_lib.load(_CONFIG.value)
    for flag in overrides:
        name, _, text = flag.removeprefix("--config.").partition("=")
        config_lib.override(config, name, text)
    config_lib.validate(config)

    import jax  # here: --help and errors need not wait for JAX
    import numpy as np

    from jaxcifar import augment, data
    from jaxcifar.rng import Stream, stream

    images = data.load(config).train.images[:COLUMNS] / np.float32(255)
    key = stream(config.seed, Stream.STEP)
    rows, number = [("original", images)], 0
    for line, samples in ((config.augment, SAMPLES), *((line, 1) for line in EXAMPLES)):
        transform = jax.jit(jax.vmap(augment.parse(line, mean=config.data.mean)))
        for sample in range(samples if line else 0):
            label = f"augment, sample {sample + 1}" if samples > 1 else line
            keys = jax.random.split(jax.random.fold_in(key, number), len(images))
            rows.append((label, np.asarray(transform(keys, images))))
            number += 1
    output = pathlib.Path(_OUTPUT.value)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draw(rows).save(output)
    except OSError as error:
        raise ConfigError(f"--output={_OUTPUT.value!r} cannot be written: {error}") from None
    print(f"{len(rows)} rows of {len(images)} images: {output}")
    return 0


def draw(rows):
    """Returns the picture of rows (label, images float32 [N, H, W, 3]), as a PIL image."""
    import numpy as np
    from PIL import Image, ImageDraw

    count, height, width, _ = rows[0][1].shape
    across, down = width * ZOOM + GAP, height * ZOOM + GAP
    picture = Image.new("RGB", (LABEL_WIDTH + count * across, len(rows) * down + GAP), "white")
    pen = ImageDraw.Draw(picture)
    for row, (label, images) in enumerate(rows):
        top = GAP + row * down
        pen.text((GAP, top + height * ZOOM // 2), label, fill="black", anchor="lm", font_size=13)
        for column, image in enumerate(images):
            pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
            tile = Image.fromarray(pixels).resize(
                (pixels.shape[1] * ZOOM, pixels.shape[0] * ZOOM), Image.Resampling.NEAREST
            )
            picture.paste(tile, (LABEL_WIDTH + column * across, top))
    return picture


def launch() -> None:
    """Runs the command."""
    cli.launch(main, __doc__, (_CONFIG, _OUTPUT), keys=config_lib.describe())


if __name__ == "__main__":
    launch()
