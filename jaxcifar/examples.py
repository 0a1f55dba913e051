"""Test images that show a model's mistakes, kept in the work directory as `examples.npz`, so that
a report can be made without the data set.

It holds arrays with a row per image: `images` uint8 [M, H, W, 3], `labels` and `predictions`
int32 [M], `probabilities` float32 [M] (of the prediction), and `pair` int32 [M]: CONFIDENT for the
most confident mistakes of all, else the rank in `worst_pairs` of the image's label and prediction.
"""

import pathlib

import numpy as np

from jaxcifar import errors, manifest, scores
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.spec import ConfigError

NUM_CONFIDENT, NUM_PAIRS, NUM_PER_PAIR = 24, 8, 6
CONFIDENT = -1  # instead of a pair's rank


def worst_pairs(confusion: np.ndarray, count: int = NUM_PAIRS) -> list[tuple[int, int]]:
    """Returns the (label, prediction) that are confused most often, the most frequent first; of
    equally frequent ones those of the smaller label.

    Args:
        confusion: counts int [C, C] by label (row) and prediction.
        count: the largest number of pairs.
    """
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return [(int(label), int(other)) for label, other in pairs if mistakes[label, other]]


def collect(logits: np.ndarray, test: Dataset) -> dict[str, np.ndarray]:
    """Returns the examples of a model, as described above; the most confident first.

    Args:
        logits: the model's, of the test images, float32 [N, C].
        test: the test set.
    """
    probabilities, predictions = scores.softmax(logits).max(-1), logits.argmax(-1)
    order = np.argsort(-probabilities, kind="stable")
    mistakes = order[predictions[order] != test.labels[order]]
    groups = {CONFIDENT: mistakes[:NUM_CONFIDENT]}
    for rank, pair in enumerate(worst_pairs(scores.confusion_matrix(logits, test.labels))):
        is_pair = (test.labels[mistakes] == pair[0]) & (predictions[mistakes] == pair[1])
        groups[rank] = mistakes[is_pair][:NUM_PER_PAIR]
    rows = np.concatenate(list(groups.values()))
    return {
        "images": test.images[rows],
        "labels": test.labels[rows].astype(np.int32),
        "predictions": predictions[rows].astype(np.int32),
        "probabilities": probabilities[rows].astype(np.float32),
        "pair": np.repeat(list(groups), [len(group) for group in groups.values()]).astype(np.int32),
    }


def save(path: pathlib.Path, examples: dict[str, np.ndarray]) -> None:
    """Writes examples to a .npz file, atomically.

    Raises:
        OSError: it cannot be written; the old file is still there.
    """
    with manifest.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **examples)


def load(path: pathlib.Path, num_classes: int) -> dict[str, np.ndarray]:
    """Returns the examples in a file.

    Raises:
        ConfigError: there is no such file, or it does not hold examples of so many classes.
    """
    with errors.reading(str(path.name)):
        with np.load(path) as file:
            found = {name: file[name] for name in (*_DTYPES,)}
        count = len(found["images"])
        for name, dtype in _DTYPES.items():
            shape = found[name].shape
            is_whole = len(shape) == 4 and shape[-1] == 3 if name == "images" else shape == (count,)
            if found[name].dtype != dtype or not is_whole:
                raise ValueError(f"{name} is {found[name].dtype} {list(shape)}")
        for name in ("labels", "predictions"):
            if count and not 0 <= found[name].min() <= found[name].max() < num_classes:
                raise ConfigError(f"{path.name} is of other classes than the run's")
    return found


_DTYPES = {
    "images": np.uint8,
    "labels": np.int32,
    "predictions": np.int32,
    "probabilities": np.float32,
    "pair": np.int32,
}
