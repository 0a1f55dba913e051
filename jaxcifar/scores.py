"""Scores as functions of logits and labels, in NumPy.

Logits are float32 [N, C] and labels int [N]; accuracies are in percent, losses in nats. All are
computed in float64.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcifar.data.labeled_images import Dataset


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the top-1 accuracy in percent."""
    return 100 * float((logits.argmax(-1) == labels).mean())


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Returns how often the label is among the k largest logits, in percent; of equal ones the
    first count.
    """
    top = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    return 100 * float((top == labels[:, None]).any(-1).mean())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the log-probabilities, float64 [N, C]."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities, float64 [N, C]."""
    return np.exp(log_softmax(logits))


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean cross-entropy in nats, `torch.nn.functional.cross_entropy`."""
    return -float(log_softmax(logits)[np.arange(len(labels)), labels].mean())


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the counts int64 [C, C] of images by label (row) and predicted class (column)."""
    num_classes = logits.shape[-1]
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, logits.argmax(-1)), 1)
    return counts


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """Returns the accuracy on each class in percent, float64 [C]; NaN for a class without images.

    Args:
        confusion: counts int [C, C] by label (row) and predicted class (column).
    """
    totals = confusion.sum(-1)
    return 100 * np.divide(
        confusion.diagonal(), totals, out=np.full(len(totals), np.nan), where=totals > 0
    )


def group(confusion: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix of groups of classes, such as superclasses.

    Args:
        confusion: int [C, C].
        groups: the group of each class, int [C].
    """
    num_groups = int(groups.max()) + 1
    counts = np.zeros((num_groups, num_groups), confusion.dtype)
    np.add.at(counts, (groups[:, None], groups[None, :]), confusion)
    return counts


def calibration(
    logits: np.ndarray, labels: np.ndarray, num_bins: int = 15
) -> tuple[float, list[dict[str, Any]]]:
    """Returns the expected calibration error in percent, and its bins (Guo et al. 2017,
    arXiv:1706.04599): equally wide by confidence, each (low, high], with count, mean confidence and
    accuracy (None in an empty bin).
    """
    probabilities = softmax(logits)
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    index = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins, error = [], 0.0
    for i in range(num_bins):
        inside = index == i
        count = int(inside.sum())
        row = {"low": i / num_bins, "high": (i + 1) / num_bins, "count": count}
        row |= {"confidence": None, "accuracy": None}
        if count:
            row["confidence"] = 100 * float(confidence[inside].mean())
            row["accuracy"] = 100 * float(correct[inside].mean())
            error += count / len(labels) * abs(row["confidence"] - row["accuracy"])
        bins.append(row)
    return error, bins


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature T in [0.05, 20] that minimizes `loss(logits / T, labels)` (Guo et al.
    2017), to 1e-6 in log T. The loss has a single minimum, for it is convex in 1 / T.
    """
    from scipy import optimize  # lazy: it takes a tenth of a second

    found = optimize.minimize_scalar(
        lambda log_t: loss(logits / np.exp(log_t), labels),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def summarize(
    logits: np.ndarray, test: Dataset, val_logits: np.ndarray, val_labels: np.ndarray
) -> dict[str, Any]:
    """Returns all scores of a model on a test set, JSON-serializable.

    Args:
        logits: the model's, of the test images, float32 [N, C].
        test: the test set.
        val_logits: the model's, of the validation images, on which the temperature is fitted,
            float32 [M, C].
        val_labels: their labels, int [M].
    """
    confusion = confusion_matrix(logits, test.labels)
    ece, bins = calibration(logits, test.labels)
    temperature = fit_temperature(val_logits, val_labels)
    result = {
        "num_images": len(test),
        "accuracy": accuracy(logits, test.labels),
        "top5_accuracy": top_k_accuracy(logits, test.labels),
        "loss": loss(logits, test.labels),
        "per_class": _by_name(confusion, test.class_names),
        "confusion_matrix": confusion.tolist(),
        "calibration": {
            "ece": ece,
            "bins": bins,
            "temperature": temperature,
            "loss_with_temperature": loss(logits / temperature, test.labels),
            "ece_with_temperature": calibration(logits / temperature, test.labels)[0],
        },
    }
    if test.superclasses is not None:
        groups = group(confusion, test.superclasses)
        result["per_superclass"] = _by_name(groups, test.superclass_names)
    return result


def _by_name(confusion: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = zip(names, confusion.sum(-1).tolist(), class_accuracies(confusion), strict=True)
    return [
        {"class": name, "num_images": count, "accuracy": float(value) if count else None}
        for name, count, value in rows
    ]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean, the sample standard deviation, and half the width of the 95% confidence
    interval of the mean by Student's t distribution; NaN for the last two of a single value.
    """
    from scipy import stats  # lazy: it takes half a second

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, math.nan, math.nan
    std = float(np.std(values, ddof=1))
    return mean, std, float(stats.t.ppf(0.975, count - 1)) * std / math.sqrt(count)
