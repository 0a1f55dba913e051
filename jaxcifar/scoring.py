"""All scores of a model: on the test set and, if there is one, on a corruption benchmark."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcifar import corruption_benchmark, examples, scores
from jaxcifar.corruption_benchmark import Benchmark
from jaxcifar.data import Splits


def evaluate(
    compute: Callable[..., np.ndarray],
    version: Any,
    splits: Splits,
    benchmark: Benchmark | None,
    directory: pathlib.Path,
    on_batch: Callable[[str], Callable[[int, int], None]],
    suffix: str = "",
) -> dict[str, Any]:
    """Returns all scores of a model, JSON-serializable. A challenge's files have none: their
    predictions become `submission_ood.csv` in the directory. Test images that show the model's
    mistakes become `examples<suffix>.npz` there.

    Args:
        compute: fn(images uint8 [N, H, W, 3], on_batch) -> logits float32 [N, C].
        version: what the logits depend on; see `corruption_benchmark.predictions`.
        splits: the data; on the validation images the temperature is fitted.
        benchmark: the corrupted images, if any.
        directory: the run's work directory.
        on_batch: fn(what is scored) -> fn(done, total), which is called after every batch.
        suffix: of another checkpoint than the best.
    """
    logits, val_logits = (
        compute(part.images, on_batch=on_batch(f"scoring {name}"))
        for name, part in (("test", splits.test), ("val", splits.val))
    )
    result = {"scored_on": "val" if splits.tests_on_val else "test"}
    result |= scores.summarize(logits, splits.test, val_logits, splits.val.labels)
    examples.save(directory / f"examples{suffix}.npz", examples.collect(logits, splits.test))
    if not benchmark:
        return result
    predicted = corruption_benchmark.predictions(
        benchmark, compute, version, directory, on_batch("scoring corruptions")
    )
    if benchmark.labels is None:
        corruption_benchmark.write_submission(directory / "submission_ood.csv", predicted)
    else:
        result["corruptions"] = corruption_benchmark.scores(
            predicted, benchmark.labels, result["accuracy"]
        )
    return result


def headline(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Returns the scores that a run's summary holds."""
    headline = {
        "test_acc": evaluation["accuracy"],
        "test_loss": evaluation["loss"],
        "top5_acc": evaluation["top5_accuracy"],
        "worst_classes": worst_classes(evaluation),
        "scored_on": evaluation.get("scored_on", "test"),
    }
    if corruptions := evaluation.get("corruptions"):
        headline |= {
            "ood_acc": corruptions["mean"],
            "ood_acc_standard": corruptions["mean_standard"],
            "ood_corruptions": corruptions["num_corruptions"],
        }
    return headline


def accuracy_name(scores: dict[str, Any]) -> str:
    """Returns what the accuracy in an evaluation or a summary is called."""
    return "val accuracy" if scores.get("scored_on") == "val" else "test accuracy"


def worst_classes(evaluation: dict[str, Any], count: int = 3) -> dict[str, float]:
    """Returns the classes with the lowest accuracies, in percent, the lowest first."""
    rows = [row for row in evaluation["per_class"] if row["accuracy"] is not None]
    rows = sorted(rows, key=lambda row: row["accuracy"])[:count]
    return {row["class"]: row["accuracy"] for row in rows}


def table(evaluation: dict[str, Any]) -> str:
    """Returns an evaluation's headline scores in a few lines, and those by corruption."""
    calibration = evaluation["calibration"]
    rows = {
        accuracy_name(
            evaluation
        ): f"{evaluation['accuracy']:.2f}%  of {evaluation['num_images']:,} images",
        "top-5 accuracy": f"{evaluation['top5_accuracy']:.2f}%",
        "loss": f"{evaluation['loss']:.4f}  "
        f"({calibration['loss_with_temperature']:.4f} at temperature "
        f"{calibration['temperature']:.3f})",
        "calibration error": f"{calibration['ece']:.2f}%  "
        f"({calibration['ece_with_temperature']:.2f}% at that temperature)",
        "worst classes": ", ".join(
            f"{name} {accuracy:.1f}%" for name, accuracy in worst_classes(evaluation).items()
        ),
    }
    lines = [f"{name:<18} {value}" for name, value in rows.items()]
    if corruptions := evaluation.get("corruptions"):
        lines.insert(0, corruption_benchmark.table(corruptions))
    return "\n".join(lines)
