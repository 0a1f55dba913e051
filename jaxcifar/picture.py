"""A picture of what augmentation and corruption do to a config's training images."""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jaxcifar import augment, corruptions, data, manifest, parallel
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.rng import Stream, stream
from jaxcifar.spec import ConfigError

NUM_IMAGES, NUM_SAMPLES = 12, 4
NUM_REPORT_IMAGES, NUM_REPORT_SAMPLES = 8, 3
ZOOM, LABEL_WIDTH, GAP = 2, 330, 4  # a pixel's size, and widths in pixels of the picture

Row = tuple[str, np.ndarray]  # a label, and images float32 [N, H, W, 3] in [0, 1]


def write(config: ConfigDict, path: str | pathlib.Path) -> str:
    """Writes the picture for a config and returns a one-line summary.

    Raises:
        ConfigError: the path is not a .png file's, or cannot be written; the data cannot be read.
    """
    path = pathlib.Path(path)
    if path.suffix != ".png":
        raise ConfigError(f"the output {str(path)!r} must be a file named *.png")
    rows = make_rows(config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(rows).save(path)
    except OSError as error:
        raise ConfigError(f"the output {str(path)!r} cannot be written: {error}") from None
    return f"{len(rows)} rows of {len(rows[0][1])} images: {path}"


def write_samples(config: ConfigDict, train: Dataset, mesh: Mesh, path: str | pathlib.Path) -> None:
    """Writes a small picture: a few training images and samples of the config's `augment`.

    Raises:
        OSError: it cannot be written.
    """
    images = train.images[:NUM_REPORT_IMAGES] / np.float32(255)
    samples = jax.jit(
        jax.vmap(augment.parse(config.augment, mean=config.data.mean)),
        compiler_options=parallel.compiler_options(mesh, run_once=True),
    )
    key, rows = stream(config.seed, Stream.STEP), [("original", images)]
    for sample in range(NUM_REPORT_SAMPLES):
        keys = jax.random.split(jax.random.fold_in(key, sample), len(images))
        rows.append((f"sample {sample + 1}", np.asarray(samples(keys, images))))
    with manifest.replacing(pathlib.Path(path)) as temporary:
        draw(rows, label_width=70).save(temporary, "PNG", optimize=True)


def make_rows(config: ConfigDict) -> list[Row]:
    """Returns the rows of the picture: original images, samples of `augment`, examples of every
    transform, and every corruption.
    """
    parallel.setup(config)
    images = data.load(config).train.images[:NUM_IMAGES] / np.float32(255)
    labels_and_pipelines = [
        (f"augment, sample {sample + 1}", config.augment)
        for sample in range(NUM_SAMPLES if config.augment else 0)
    ]
    labels_and_pipelines += [(pipeline, pipeline) for pipeline in example_pipelines()]
    key = stream(config.seed, Stream.STEP)
    rows, compiled = [("original", images)], {}
    for index, (label, pipeline) in enumerate(labels_and_pipelines):
        if pipeline not in compiled:
            compiled[pipeline] = jax.jit(jax.vmap(augment.parse(pipeline, mean=config.data.mean)))
        keys = jax.random.split(jax.random.fold_in(key, index), len(images))
        rows.append((label, np.asarray(compiled[pipeline](keys, images))))
    return rows + _corruption_rows(images, config.seed)


def _corruption_rows(images: np.ndarray, seed: int) -> list[Row]:
    """Returns a row for each available corruption: two images, each clean and at every severity."""
    clean = np.round(images[:2] * 255).astype(np.uint8)
    cells = {name: [clean] for name in corruptions.available()}
    for name, _, corrupted in corruptions.generate(clean, seed, cells):
        cells[name].append(corrupted)
    return [
        (f"{name}, severity 0 to 5", np.concatenate(np.stack(parts, 1)) / np.float32(255))
        for name, parts in cells.items()
    ]


def example_pipelines() -> list[str]:
    """Returns augmentation strings for every registered transform: its examples, or else its name.
    Transforms with required parameters and no examples are omitted.
    """
    pipelines = []
    for name, entry in augment.TRANSFORMS.items():
        needs_values = any(declared.is_required for declared in entry.parameters.values())
        pipelines += entry.examples or ([] if needs_values else [name])
    return pipelines


def draw(rows: Sequence[Row], label_width: int = LABEL_WIDTH) -> Image.Image:
    """Returns the picture of the rows."""
    count, height, width, _ = rows[0][1].shape
    column_width, row_height = width * ZOOM + GAP, height * ZOOM + GAP
    size = (label_width + count * column_width, len(rows) * row_height + GAP)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for row, (label, images) in enumerate(rows):
        top = GAP + row * row_height
        pen.text((GAP, top + height * ZOOM // 2), label, fill="black", anchor="lm", font_size=13)
        for column, image in enumerate(images):
            pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
            tile = Image.fromarray(pixels).resize(
                (pixels.shape[1] * ZOOM, pixels.shape[0] * ZOOM), Image.Resampling.NEAREST
            )
            picture.paste(tile, (label_width + column * column_width, top))
    return picture
