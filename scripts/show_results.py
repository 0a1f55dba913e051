"""Prints the tables of the study's results, in Markdown, and draws them.

python scripts/show_results.py [--results=docs/results/cifar10.json] [--picture=FILE.png]

Accuracies are in percent: the mean over the runs, ± their sample standard deviation, and in
parentheses how many there are.
"""

import argparse
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
PARTS = {
    "part1": "Part 1: SimpleCNN, 5 epochs",
    "part2": "Part 2: ResNet-18, 5 epochs",
    "part3": "Part 3 without ImageNet's weights, 50 epochs",
}
RECIPES = {
    "part3-no-augmentation": "Part 3 without augmentation",
    "part3-crop-flip": "Part 3 with crops and flips only",
    "part3-as-logged": "Part 3 as the study's log shows that it ran",
    "part3": "Part 3",
    "part3-augmix": "Part 3 with crops, flips and AugMix",
    "robust": "`robust.py`, 50 epochs",
}


def tables(results: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the lines of each table, by its name."""
    return {
        "parts": list(_parts(results)),
        "recipes": list(_recipes(results)),
        "corruptions": list(_corruptions(results)),
    }


def _parts(results: dict[str, Any]) -> Iterator[str]:
    yield "| test accuracy | jaxcifar | PyTorch |"
    yield "|---|---|---|"
    for name, title in PARTS.items():
        ours, peer = (score(results[name], side, "test_acc") for side in ("jaxcifar", "pytorch"))
        yield f"| {title} | {ours} | {peer} |"


def _recipes(results: dict[str, Any]) -> Iterator[str]:
    yield "| recipe | test images | under 19 corruptions |"
    yield "|---|---|---|"
    for name, title in RECIPES.items():
        clean, corrupted = (
            score(results[name], "jaxcifar", key) for key in ("test_acc", "ood_acc")
        )
        yield f"| {title} | {clean} | {corrupted} |"


def _corruptions(results: dict[str, Any]) -> Iterator[str]:
    rows = {name: _runs(results[name], "jaxcifar") for name in RECIPES}
    yield "| | " + " | ".join(RECIPES.values()) + " |"
    yield "|---" * (len(rows) + 1) + "|"
    for corruption in rows["part3"][0]["ood_accs"]:
        means = [np.mean([run["ood_accs"][corruption] for run in runs]) for runs in rows.values()]
        yield f"| {corruption} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |"


def score(experiment: dict[str, Any], side: str, key: str) -> str:
    """Returns the mean and spread of a score over the runs that have it."""
    values = [run[key] for run in _runs(experiment, side) if key in run]
    if not values:
        return "not finished"
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread} ({len(values)})"


def _runs(experiment: dict[str, Any], side: str) -> list[dict[str, Any]]:
    return list(experiment[side]["runs"].values()) if side in experiment else []


def draw(results: dict[str, Any], path: pathlib.Path) -> None:
    """Draws validation accuracy by epoch, and both test accuracies, by recipe."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    curves, bars = figure.subplots(1, 2)
    for index, name in enumerate(RECIPES):
        runs, color = _runs(results[name], "jaxcifar"), f"C{index}"
        accuracies = np.mean([run["val_acc"] for run in runs], 0)
        curves.plot(range(1, len(accuracies) + 1), accuracies, color=color, linewidth=1.3)
        clean, corrupted = (np.mean([run[key] for run in runs]) for key in ("test_acc", "ood_acc"))
        bars.barh(index, clean, color=color, alpha=0.35)
        bars.barh(index, corrupted, color=color)
        bars.text(
            corrupted - 0.3, index, f"{corrupted:.1f}", ha="right", va="center", color="white"
        )
        bars.text(clean + 0.3, index, f"{clean:.1f}", va="center")
    curves.set(ylim=(30, 95), xlabel="epoch", ylabel="%", title="validation accuracy")
    bars.set(xlim=(60, 95), xlabel="%", title="test accuracy: corrupted (solid) and clean")
    bars.set_yticks(range(len(RECIPES)), [title.replace("`", "") for title in RECIPES.values()])
    bars.invert_yaxis()
    for axes in (curves, bars):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "docs" / "results" / "cifar10.json"
    parser.add_argument("--results", type=pathlib.Path, default=default)
    parser.add_argument("--picture", type=pathlib.Path)
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    for lines in tables(results).values():
        print("\n".join(lines), end="\n\n")
    if args.picture:
        draw(results, args.picture)


if __name__ == "__main__":
    main()
