"""The sections of a run's report about its scores, from evaluation.json and the example images."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcifar import examples
from jaxcifar.report import charts, html
from jaxcifar.report.run_files import RunFiles

MAX_BARS = 40  # classes in the chart; of more, the worst and the best
MAX_CELLS = 20  # classes of a confusion matrix that is shown whole
MAX_PIXELS = 64  # a side of an example image


def classes(run: RunFiles) -> str:
    """Returns the accuracy of every class, the lowest first, and that of superclasses."""
    if "per_class" not in run.evaluation:
        return ""
    confusion = _confusion(run)
    confused = confusion - np.diag(confusion.diagonal())
    names, superclass = run.class_names, _superclass_of(run)
    rows = [
        row | {"other": names[int(others.argmax())] if others.any() else "none"}
        for row, others in zip(run.evaluation["per_class"], confused, strict=True)
        if row["accuracy"] is not None
    ]
    rows.sort(key=lambda row: row["accuracy"])
    parts = []
    if superclass:
        groups = sorted(run.evaluation["per_superclass"], key=lambda row: row["accuracy"])
        dots = [
            [row["accuracy"] for row in rows if superclass[row["class"]] == group["class"]]
            for group in groups
        ]
        alt = (
            f"Bar chart of {len(groups)} superclasses by accuracy, from {_name(groups[0])} to "
            f"{_name(groups[-1])}."
        )
        chart = _bars(groups, alt, dots)
        caption = "Superclasses: a bar counts as right what is taken for a class of the same one; "
        parts.append(html.figure(chart, caption + "dots are the accuracies of the classes."))
    shown = rows if len(rows) <= MAX_BARS else rows[: MAX_BARS // 2] + rows[-MAX_BARS // 2 :]
    alt = f"Bar chart of classes by accuracy, from {_name(rows[0])} to {_name(rows[-1])}."
    chart = _bars(shown, alt)
    which = "All classes" if shown is rows else f"The {MAX_BARS // 2} worst and best classes"
    parts.append(html.figure(chart, f"{which}, the lowest accuracy first."))
    columns = ("class", "superclass", "accuracy, %", "images", "most often taken for")
    cells = [
        (
            row["class"],
            superclass.get(row["class"], ""),
            f"{row['accuracy']:.1f}",
            row["num_images"],
            row["other"],
        )
        for row in rows
    ]
    words = ("superclass", "most often taken for")
    if not superclass:
        columns, cells = columns[:1] + columns[2:], [cell[:1] + cell[2:] for cell in cells]
    table = html.table("Accuracy of every class, the lowest first", columns, cells, words)
    if superclass:
        group_rows = [(g["class"], f"{g['accuracy']:.1f}", g["num_images"]) for g in groups]
        columns = ("superclass", "accuracy, %", "images")
        table = html.table("Accuracy of every superclass", columns, group_rows) + table
    return f'<div class="charts">{"".join(parts)}</div>' + html.details(
        "The numbers of every class", table
    )


def confusions(run: RunFiles) -> str:
    """Returns the pairs of classes that are confused most often, with example images."""
    if "confusion_matrix" not in run.evaluation:
        return ""
    confusion, names = _confusion(run), run.class_names
    pairs = examples.worst_pairs(confusion)
    if not pairs:
        return html.paragraph("No image is taken for another class.")
    totals = confusion.sum(-1)
    rows = [
        (
            names[label],
            names[other],
            confusion[label, other],
            totals[label],
            f"{100 * confusion[label, other] / totals[label]:.1f}",
        )
        for label, other in pairs
    ]
    columns = ("class", "taken for", "images", "of", "%")
    body = html.table("The pairs confused most often", columns, rows, ("taken for",))
    if run.examples is not None:
        blocks = (
            f"<div><h3>{html.escape(f'{names[label]}, taken for {names[other]}')}</h3>"
            f'<div class="strip">{_strip(run, label, other)}</div></div>'
            for label, other in pairs
        )
        body += f'<div class="pairs">{"".join(blocks)}</div>'
    if len(names) <= MAX_CELLS:
        caption = "Confusion matrix: images by class (row) and prediction (column)"
        matrix = html.heat_table(caption, ("class", *names), names, confusion, 0)
        body += html.details("The whole confusion matrix", matrix)
    return body


def mistakes(run: RunFiles) -> str:
    """Returns the gallery of the mistakes with the highest probability."""
    if run.examples is None:
        return ""
    found, names = run.examples, run.class_names
    rows = np.flatnonzero(found["pair"] == examples.CONFIDENT)
    cells = (
        "<li>"
        + html.figure(
            _image(found["images"][row], f"Test image of class {names[found['labels'][row]]}"),
            f"{names[found['labels'][row]]}, taken for {names[found['predictions'][row]]} "
            f"at {100 * found['probabilities'][row]:.1f}%",
        )
        + "</li>"
        for row in rows
    )
    text = "The wrong predictions with the highest probability. Some labels may be wrong, too."
    return html.paragraph(text) + f'<ul class="gallery">{"".join(cells)}</ul>'


def calibration(run: RunFiles) -> str:
    """Returns the reliability diagram."""
    if "calibration" not in run.evaluation:
        return ""
    result = run.evaluation["calibration"]
    full = [row for row in result["bins"] if row["count"]]
    alt = f"Reliability diagram of {len(full)} bins; the calibration error is {result['ece']:.1f}%."
    caption = (
        "Accuracy of the predictions over their confidence. Bars below the dashed line: the model "
        f"is too sure; above it: not sure enough. Calibration error {result['ece']:.1f}%; "
        f"{result['ece_with_temperature']:.1f}% when logits are divided by the temperature "
        f"{result['temperature']:.3f}, which fits the validation images best."
    )
    rows = [
        (
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            row["count"],
            f"{row['confidence']:.1f}",
            f"{row['accuracy']:.1f}",
        )
        for row in full
    ]
    columns = ("confidence, %", "images", "mean confidence, %", "accuracy, %")
    table = html.table("Calibration: the bins of the diagram", columns, rows)
    return (
        f'<div class="charts">{html.figure(charts.reliability(result["bins"], alt), caption)}</div>'
        + html.details("The numbers of this chart", table)
    )


def corruptions(run: RunFiles) -> str:
    """Returns the accuracy under every corruption at every severity."""
    if "corruptions" not in run.evaluation:
        return ""
    result = run.evaluation["corruptions"]
    names = sorted(result["accuracy"], key=lambda name: np.mean(result["accuracy"][name]))
    values = np.array([result["accuracy"][name] for name in names], float)
    values = np.column_stack([values, values.mean(1)])
    severities = [f"severity {severity}" for severity in range(1, values.shape[1])]
    text = f"Mean over {result['num_corruptions']} corruptions: {result['mean']:.1f}%"
    if result["num_standard"]:
        text += f"; over {result['num_standard']} standard ones: {result['mean_standard']:.1f}%"
    if result["relative"]:
        text += f". That is {100 * result['relative']:.1f}% of the accuracy without corruption"
    caption = "Accuracy under corruptions, %, the lowest mean first; more color is more accurate"
    columns = ("corruption", *severities, "mean")
    return html.paragraph(f"{text}.") + html.heat_table(caption, columns, names, values, 1)


def _confusion(run: RunFiles) -> np.ndarray:
    confusion = np.array(run.evaluation["confusion_matrix"], np.int64)
    if confusion.shape != (len(run.class_names),) * 2:
        raise ValueError("classes.json and the confusion matrix have different classes")
    return confusion


def _superclass_of(run: RunFiles) -> dict[str, str]:
    """Returns the superclass by class name; {} if there are none."""
    if "per_superclass" not in run.evaluation:
        return {}
    from jaxcifar.data.cifar_archive import CIFAR100_SUPERCLASSES  # lazy: rarely needed

    groups = CIFAR100_SUPERCLASSES.items()
    known = {name: group for group, names in groups for name in names.split()}
    return known if known.keys() == set(run.class_names) else {}


def _bars(rows: Sequence[Mapping[str, Any]], alt: str, dots: Sequence[Sequence[float]] = ()) -> str:
    names, values = [row["class"] for row in rows], [row["accuracy"] for row in rows]
    return charts.bars(names, values, "accuracy, %", alt, dots)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['class']} with {row['accuracy']:.1f}%"


def _strip(run: RunFiles, label: int, other: int) -> str:
    """Returns the example images of a pair, the most confident first."""
    found = run.examples
    is_pair = (found["labels"] == label) & (found["predictions"] == other)
    rows = np.flatnonzero(is_pair & (found["pair"] != examples.CONFIDENT))
    return "".join(
        _image(found["images"][row], f"at {100 * found['probabilities'][row]:.1f}%") for row in rows
    )


def _image(pixels: np.ndarray, alt: str) -> str:
    from PIL import Image  # lazy: most sections have no images

    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((MAX_PIXELS, MAX_PIXELS))
    picture.save(file, "PNG", optimize=True)
    return html.image(file.getvalue(), "image/png", alt, picture.size)
