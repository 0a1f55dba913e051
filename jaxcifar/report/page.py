"""A run's report, from the files in its work directory alone."""

import math
import pathlib
from collections.abc import Callable

from jaxcifar import errors, manifest
from jaxcifar.report import charts, html, run_files, scores_sections, setup_sections
from jaxcifar.report.html import Section
from jaxcifar.report.run_files import RunFiles
from jaxcifar.run_schedule import RunSchedule
from jaxcifar.spec import ConfigError

NUM_POINTS = 400  # of a schedule's curve, at least


def write(workdir: str | pathlib.Path, output: str | pathlib.Path | None = None) -> pathlib.Path:
    """Writes the report of a run, and returns its path. What of the run is missing or damaged is
    left out, and the report says so.

    Args:
        workdir: the run's work directory; it may be running or interrupted.
        output: the file to write (default: report.html in the work directory).

    Raises:
        ConfigError: the directory is not a run's, the file cannot be written, or matplotlib is not
            installed.
    """
    charts.check_available()
    run = run_files.read(workdir)
    sections = []
    for name, heading, build in _SECTIONS:
        try:
            with errors.reading(f"{heading}: the files"):
                if body := build(run):
                    sections.append(Section(name, heading, body))
        except ConfigError as error:
            run.notes.append(str(error))
    page = html.document(f"Run {run.name}", run.status, run.notes, sections)
    return save(pathlib.Path(output or run.directory / "report.html"), page)


def save(path: pathlib.Path, page: str) -> pathlib.Path:
    """Writes a page and returns its path.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        manifest.write_atomically(path, page)
    except OSError as error:
        raise ConfigError(f"the report {str(path)!r} cannot be written: {error.strerror}") from None
    return path


def _headline(run: RunFiles) -> str:
    """Returns the headline numbers with what they mean; "" if there are none yet."""
    numbers, rows = run.headline(), []
    count, num_classes = run.evaluation.get("num_images"), len(run.class_names)
    if "test_acc" in numbers:
        accuracy, is_val = numbers["test_acc"], run.evaluation.get("scored_on") == "val"
        images = "validation images, for there are no test images" if is_val else "test images"
        meaning = f"of the {images}, classified by the best epoch's model"
        if count:
            spread = 196 * math.sqrt(accuracy / 100 * (1 - accuracy / 100) / count)
            meaning = (
                f"of {count:,} {images}, by the best epoch's model. The 95% interval for images of "
                f"this kind is ± {spread:.1f} points"
            )
        guessing = f"; guessing gives {100 / num_classes:.1f}%" if num_classes else ""
        name = "Accuracy on validation" if is_val else "Test accuracy"
        rows.append((name, f"{accuracy:.1f}%", f"{meaning}{guessing}."))
    if "best_val_acc" in numbers:
        rows.append(
            (
                "Validation accuracy",
                f"{numbers['best_val_acc']:.1f}%",
                f"after epoch {numbers['best_epoch']:.0f}, the best. It chose the epoch, so it "
                "flatters a little.",
            )
        )
    if "top5_accuracy" in run.evaluation and num_classes > 5:
        value = run.evaluation["top5_accuracy"]
        rows.append(("Top-5 accuracy", f"{value:.1f}%", "the label is among the five likeliest."))
    if "test_loss" in numbers:
        meaning = "mean cross-entropy in nats"
        if num_classes:
            meaning += f"; guessing gives {math.log(num_classes):.3f}"
        rows.append(("Test loss", f"{numbers['test_loss']:.3f}", f"{meaning}."))
    if "ood_acc" in numbers:
        meaning = f"mean over {numbers.get('ood_corruptions', 0):.0f} corruptions and 5 severities."
        if "ood_acc_standard" in numbers:
            meaning += f" Over the standard 15: {numbers['ood_acc_standard']:.1f}%."
        rows.append(("Accuracy under corruptions", f"{numbers['ood_acc']:.1f}%", meaning))
    if "calibration" in run.evaluation:
        value = run.evaluation["calibration"]["ece"]
        meaning = "mean distance of the confidence from the accuracy; 0 is best."
        rows.append(("Calibration error", f"{value:.1f}%", meaning))
    if "num_params" in numbers:
        rows.append(("Parameters", f"{numbers['num_params']:,.0f}", "trained numbers."))
    if "images_per_second" in numbers:
        speed = numbers["images_per_second"]
        meaning = "training images, median over epochs."
        rows.append(("Speed", f"{speed:,.0f} images/s", meaning))
    if "wall_seconds" in numbers:
        minutes, seconds = divmod(round(numbers["wall_seconds"]), 60)
        hours, minutes = divmod(minutes, 60)
        time = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
        rows.append(("Time", time, "training and validation, all epochs."))
    return html.cards(rows) if rows else ""


def _curves(run: RunFiles) -> str:
    """Returns the curves of the epochs done; "" if there are none."""
    if not run.records:
        return ""
    epochs = [record["epoch"] for record in run.records]
    column = {key: [record[key] for record in run.records] for key in run_files.RECORD_KEYS}
    best, last = run.best, run.records[-1]
    mark = (best["epoch"], "best")
    pictures = [
        html.figure(
            charts.lines(
                [
                    charts.Series("training", epochs, column[f"train_{what}"]),
                    charts.Series("validation", epochs, column[f"val_{what}"]),
                ],
                label,
                f"Line chart: {name} after each epoch, training and validation; the last are "
                f"{last[f'train_{what}']:.{digits}f} and {last[f'val_{what}']:.{digits}f}.",
                mark=mark,
            ),
            caption,
        )
        for what, name, label, digits, caption in (
            ("loss", "loss", "loss, nats", 3, "Loss: mean cross-entropy."),
            ("acc", "accuracy", "accuracy, %", 1, "Accuracy: how many images are right."),
        )
    ]
    schedule, note = _schedule(run)
    for name, title in (("lr", "learning rate"), ("momentum", "momentum")):
        x, y = schedule.get(name, ((), ()))
        if len(x) and (name == "lr" or min(y) != max(y)):
            alt = f"Line chart: {title} over the run, from {y[0]:.3g} to {y[-1]:.3g}."
            line = charts.Series(title, x, y)
            chart = charts.lines([line], title, alt, from_zero=name == "lr")
            pictures.append(html.figure(chart, f"{title.capitalize()}. {note}"))
        elif len(x):
            note += f" Momentum is {y[0]:g} throughout."
            pictures[-1] = html.figure(chart, f"Learning rate. {note}")
    speed = column["images_per_second"]
    alt = f"Line chart: training images per second, from {min(speed):,.0f} to {max(speed):,.0f}."
    chart = charts.lines([charts.Series("speed", epochs, speed)], "images/s", alt, from_zero=True)
    pictures.append(html.figure(chart, "Speed: training images per second in each epoch."))
    momentum = dict(zip(*schedule.get("momentum", ((), ())), strict=True))
    rows = [
        (
            f"{record['epoch']:.0f}",
            *(f"{record[key]:.4f}" for key in ("train_loss", "val_loss")),
            *(f"{record[key]:.1f}" for key in ("train_acc", "val_acc")),
            f"{record['lr']:.4g}",
            f"{momentum[record['epoch']]:.4g}" if record["epoch"] in momentum else "",
            f"{record['images_per_second']:,.0f}",
            f"{record['seconds']:.1f}",
        )
        for record in run.records
    ]
    columns = ("epoch", "train loss", "val loss", "train acc, %", "val acc, %")
    columns += ("lr at the end", "momentum", "images/s", "seconds")
    numbers = html.table("Epochs: the numbers of the curves", columns, rows)
    return f'<div class="charts">{"".join(pictures)}</div>' + html.details(
        "The numbers of these charts", numbers
    )


Curves = dict[str, tuple[list[float], list[float]]]  # (epochs, values) by name


def _schedule(run: RunFiles) -> tuple[Curves, str]:
    """Returns the learning rate and the momentum over the epochs done, and where they come from:
    the schedule replayed, or the records where the config's schedule disagrees with them.
    """
    try:
        with errors.reading("the schedule"):
            return _replay(run), "As the config's schedule says; the records agree."
    except ConfigError:
        epochs, lrs = ([record[key] for record in run.records] for key in ("epoch", "lr"))
        return {"lr": (epochs, lrs)}, (
            "After each epoch, as recorded: the config's schedule has other values, or is not "
            "known here."
        )


def _replay(run: RunFiles) -> Curves:
    """Returns the values of the run's schedule.

    Raises:
        ValueError: they are not those of the records.
    """
    steps_per_epoch = int(run.records[-1]["step"] / run.records[-1]["epoch"])
    schedule = RunSchedule(setup_sections.to_config(run), steps_per_epoch)
    per_epoch = min(steps_per_epoch, math.ceil(NUM_POINTS / len(run.records)))
    curves: Curves = {}

    def add(epoch: int, step: int) -> None:
        for name, value in schedule.values(epoch, step).items():
            epochs, values = curves.setdefault(name, ([], []))
            epochs.append(step / steps_per_epoch)
            values.append(value)

    for record in run.records:
        epoch = int(record["epoch"])
        first_step, end = (epoch - 1) * steps_per_epoch, epoch * steps_per_epoch
        for point in range(per_epoch):
            add(epoch - 1, first_step + point * steps_per_epoch // per_epoch)
        schedule.end_epoch(epoch, end, record["val_loss"], record["val_acc"])
        lr = schedule.lr(epoch, end)
        if not math.isclose(lr, record["lr"], rel_tol=1e-4, abs_tol=1e-12):
            raise ValueError(f"{lr} after epoch {epoch}, but {record['lr']} in the records")
    add(epoch, end)
    return curves


_SECTIONS: list[tuple[str, str, Callable[[RunFiles], str]]] = [
    ("results", "Results", _headline),
    ("curves", "Curves", _curves),
    ("classes", "Accuracy by class", scores_sections.classes),
    ("confusions", "Confusions", scores_sections.confusions),
    ("mistakes", "Most confident mistakes", scores_sections.mistakes),
    ("calibration", "Calibration", scores_sections.calibration),
    ("corruptions", "Corruptions", scores_sections.corruptions),
    ("augmentation", "Augmentation", setup_sections.augmentation),
    ("config", "Config", setup_sections.config),
    ("environment", "Environment", setup_sections.environment),
    ("reproduce", "Run it again", setup_sections.reproduce),
]
