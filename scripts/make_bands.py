"""Writes the bands that --check_recipe compares with, configs/<name>.band.json, from the study's
results.

python scripts/make_bands.py [--results=docs/results/cifar10.json] [--output=configs]

After each epoch the band is the mean over the runs, plus and minus four standard deviations (pooled
over five epochs) and at least two points. A single run has no spread of its own: its epochs' is
taken from how far each is from the middle of its neighbors.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = {  # by config: the experiment
    "part1": "part1",
    "part2": "part2",
    "part3": "part3",
    "part3_bf16": "part3",
    "part3_as_logged": "part3-as-logged",
    "robust": "robust",
}
NUM_DEVIATIONS, MIN_HALF_WIDTH, WINDOW = 4, 2.0, 5


def band(experiment: dict[str, Any], config: dict[str, object]) -> dict[str, Any]:
    """Returns the content of a band's file.

    Args:
        experiment: a result of scripts/study.py.
        config: keys in which a run must agree beside its epochs.
    """
    runs = list(experiment["jaxcifar"]["runs"].values())
    accuracies = np.array([run["val_acc"] for run in runs])
    lowest, highest = limits(accuracies)
    return {
        "num_seeds": len(runs),
        "config": config | {"num_epochs": accuracies.shape[1]},
        "class_names": experiment["jaxcifar"]["class_names"],
        "steps_per_epoch": experiment["jaxcifar"]["steps_per_epoch"],
        "lr": runs[0]["lr"],
        "val_acc": np.stack([lowest, highest], -1).round(2).tolist(),
    }


def limits(accuracies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and the highest of each epoch, in percent, for runs [runs, epochs]."""
    mean = accuracies.mean(0)
    if len(accuracies) > 1:
        variances = accuracies.var(0, ddof=1)
    else:
        middles = (mean[:-2] + mean[2:]) / 2
        variances = np.pad(np.square(mean[1:-1] - middles) / 1.5, 1, mode="edge")
    near = np.arange(len(mean))
    pooled = [variances[np.abs(near - epoch) <= WINDOW // 2].mean() for epoch in near]
    half_width = np.maximum(NUM_DEVIATIONS * np.sqrt(pooled), MIN_HALF_WIDTH)
    return np.maximum(mean - half_width, 0), np.minimum(mean + half_width, 100)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "docs" / "results" / "cifar10.json"
    parser.add_argument("--results", type=pathlib.Path, default=default)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "configs")
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    for name, experiment in CONFIGS.items():
        pretrained = {"model.pretrained": ""} if name.startswith("part3") else {}
        text = json.dumps(band(results[experiment], pretrained)) + "\n"
        (args.output / f"{name}.band.json").write_text(text)


if __name__ == "__main__":
    main()
