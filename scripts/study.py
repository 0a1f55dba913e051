"""Trains the experiments whose results the README shows, beside PyTorch where it is compared.

python scripts/study.py --data=DIR [--only=NAME,...] [--workdir=runs/study] [--output=FILE.json]
                        [--peer_python=PYTHON]

DIR is CIFAR-10 as an image folder, train/<class>/* and test/<class>/*. Each experiment is a few
seeds of a config, and is trained by the documented command; one that has finished is not repeated.
--peer_python names a Python with PyTorch and torchvision; without it the peer is left out.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

from benchmark import processor

SCRIPTS = pathlib.Path(__file__).parent
NARROW = {  # Part 3's recipe at a size that two cores can train
    "model.pretrained": "",
    "model.width": 16,
    "data.limit": 8_000,
    "num_epochs": 20,
    "eval.ood_dir": "generate",
}
CROP_AND_FLIP = "random_crop(padding=4) | random_flip"


class Experiment(NamedTuple):
    """Some seeds of a config, and the peer's part if it is compared."""

    config: str
    overrides: dict[str, object]
    num_seeds: int
    peer: list[str] | None = None  # flags of pytorch_baseline.py
    num_test: int = 0  # test images of each class (0: all)


EXPERIMENTS = {
    "part1": Experiment("part1", {}, 5, ["--part=1"]),
    "part2-small": Experiment("part2", {"data.limit": 8_000}, 2, ["--part=2", "--limit=8000"]),
    "part3-narrow": Experiment("part3", NARROW, 3, num_test=200),
    "part3-as-logged-narrow": Experiment(
        "part3_as_logged", NARROW | {"schedule.steps_per_epoch": 63}, 3, num_test=200
    ),
    "part3-narrow-no-augmentation": Experiment("part3", NARROW | {"augment": ""}, 3, num_test=200),
    "part3-narrow-crop-flip": Experiment(
        "part3", NARROW | {"augment": CROP_AND_FLIP}, 3, num_test=200
    ),
    "robust-narrow": Experiment("robust", NARROW, 3, num_test=200),
    "part3-narrow-augmix": Experiment(
        "part3", NARROW | {"augment": f"{CROP_AND_FLIP} | augmix"}, 3, num_test=200
    ),
}


def train(name: str, data: pathlib.Path, workdir: pathlib.Path) -> dict:
    """Trains an experiment's seeds, or what is left of them; returns what they gave."""
    experiment = EXPERIMENTS[name]
    if experiment.num_test:
        data = _with_fewer_test_images(data, workdir, experiment.num_test)
    directory = workdir / name
    overrides = {"data.name": "folder", "num_seeds": experiment.num_seeds, **experiment.overrides}
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    command = ["-m", "jaxcifar.main", f"--config=configs/{experiment.config}.py", *flags]
    own = [f"--config.data.dir={data}", "--config.wandb.mode=disabled", f"--workdir={directory}"]
    subprocess.run([sys.executable, *command, *own], check=True)
    seeds = json.loads((directory / "summary.json").read_text())
    row = {"command": " ".join(["python", *command]), "test_images_per_class": experiment.num_test}
    row |= {key: seeds[key] for key in ("num_params", "device", "versions", "git", "seeds")}
    row["runs"] = [_run(directory / f"seed-{seed}") for seed in row["seeds"]]
    return row


def _run(directory: pathlib.Path) -> dict:
    """Returns what a run of one seed gave."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    summary = json.loads((directory / "summary.json").read_text())
    keys = ("test_acc", "test_loss", "best_val_acc", "best_epoch", "ood_acc", "ood_acc_standard")
    run = {key: summary[key] for key in keys if key in summary}
    return run | {key: [record[key] for record in records] for key in ("val_acc", "train_loss")}


def train_peer(name: str, python: str, data: pathlib.Path, workdir: pathlib.Path) -> dict:
    """Trains the same seeds in PyTorch, or what is left of them; returns what they gave."""
    experiment, runs = EXPERIMENTS[name], []
    command = [str(SCRIPTS / "pytorch_baseline.py"), *experiment.peer, f"--data={data}"]
    for seed in range(42, 42 + experiment.num_seeds):
        output = workdir / f"{name}-pytorch-{seed}.log"
        if not output.exists():
            done = subprocess.run(
                [python, *command, f"--seed={seed}"], check=True, stdout=subprocess.PIPE, text=True
            )
            output.write_text(done.stdout)
        *records, last = output.read_text().splitlines()
        values = [json.loads(record)["val_acc"] for record in records]
        runs.append(
            {"test_acc": float(re.search(r"accuracy ([\d.]+)%", last)[1]), "val_acc": values}
        )
    return {
        "command": f"python scripts/pytorch_baseline.py {' '.join(experiment.peer)}",
        "runs": runs,
    }


def _with_fewer_test_images(data: pathlib.Path, workdir: pathlib.Path, count: int) -> pathlib.Path:
    """Returns an image folder with the same training images and the first test images of a class,
    by name.
    """
    fewer = (workdir / f"data-{count}").absolute()
    if not (fewer / "train").exists():
        for folder in sorted((data / "test").iterdir()):
            (fewer / "test" / folder.name).mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.iterdir())[:count]:
                link = fewer / "test" / folder.name / file.name
                link.unlink(missing_ok=True)
                link.symlink_to(file.absolute())
        (fewer / "train").symlink_to((data / "train").absolute())
    return fewer


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--only", default=",".join(EXPERIMENTS))
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/study"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("study.json"))
    parser.add_argument("--peer_python")
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - set(EXPERIMENTS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    args.workdir.mkdir(parents=True, exist_ok=True)
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name in args.only.split(","):
        row = {"processor": processor(), "jaxcifar": train(name, args.data, args.workdir)}
        if EXPERIMENTS[name].peer and args.peer_python:
            row["pytorch"] = train_peer(name, args.peer_python, args.data, args.workdir)
        results[name] = row
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
