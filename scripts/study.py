"""Trains the experiments whose results the README shows, beside PyTorch where it is compared.

python scripts/study.py --data=DIR [--only=NAME,...] [--seeds=N] [--parallel=N]
                        [--workdir=runs/study] [--output=FILE.json]
                        [--peer_python=PYTHON] [--peer_workers=N]

DIR is CIFAR-10 as an image folder, train/<class>/* and test/<class>/*. Every run is the documented
command; one that has finished is not repeated, one that was interrupted is resumed. Experiments
under corruptions need the package imagecorruptions, for its photographs of frost. --parallel runs
share the machine's processors and its GPU. --peer_python names a Python with PyTorch and
torchvision, --peer_workers its DataLoader workers; without it the peer is left out.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from benchmark import processor

SCRIPTS = pathlib.Path(__file__).parent
FIRST_SEED = 42


class Experiment(NamedTuple):
    """A config, what differs from it, and the peer's part if it is compared."""

    config: str
    overrides: dict[str, object]
    peer: tuple[str, ...] = ()  # flags of pytorch_baseline.py
    is_corrupted: bool = False  # scored under corruptions, too


BFLOAT16 = {"dtype": "bfloat16"}  # as PyTorch's autocast
SCRATCH = {"model.pretrained": "", **BFLOAT16}
CROP_AND_FLIP = "random_crop(padding=4) | random_flip"
EXPERIMENTS = {
    "part1": Experiment("part1", {}, ("--part=1",)),
    "part2": Experiment("part2", BFLOAT16, ("--part=2",)),
    "part3": Experiment("part3", SCRATCH, ("--part=3",), is_corrupted=True),
    "robust": Experiment("robust", {"num_epochs": 50, **BFLOAT16}, is_corrupted=True),
    "part3-as-logged": Experiment("part3_as_logged", SCRATCH, is_corrupted=True),
    "part3-no-augmentation": Experiment("part3", SCRATCH | {"augment": ""}, is_corrupted=True),
    "part3-crop-flip": Experiment("part3", SCRATCH | {"augment": CROP_AND_FLIP}, is_corrupted=True),
    "part3-augmix": Experiment(
        "part3", SCRATCH | {"augment": f"{CROP_AND_FLIP} | augmix"}, is_corrupted=True
    ),
}


class Study:
    """The experiments' runs and the file of their results."""

    def __init__(self, args: argparse.Namespace):
        """Reads the results so far."""
        self.args, self.lock = args, threading.Lock()
        exists = args.output.exists()
        self.results = json.loads(args.output.read_text()) if exists else {}

    def run(self, names: list[str]) -> None:
        """Trains what is missing, a seed of every experiment after the other, and writes each
        run's result as it ends.
        """
        seeds = range(FIRST_SEED, FIRST_SEED + self.args.seeds)
        with ThreadPoolExecutor(self.args.parallel) as pool:
            if any(EXPERIMENTS[name].is_corrupted for name in names):
                self.corrupted = pool.submit(self.write_corrupted)
            jobs = []
            for seed in seeds:
                for name in names:
                    if EXPERIMENTS[name].peer and self.args.peer_python:
                        jobs.append(pool.submit(self.train_peer, name, seed))
                    jobs.append(pool.submit(self.train, name, seed))
            for job in jobs:
                job.result()

    def write_corrupted(self) -> pathlib.Path:
        """Writes the test images under corruptions, in the layout of CIFAR-10-C."""
        directory = self.args.workdir / "corrupted"
        command = ["jaxcifar.corruptions", "--config=configs/part3.py", *self.data_flags()]
        _run([sys.executable, "-m", *command, f"--output={directory}"], directory)
        return directory

    def train(self, name: str, seed: int) -> None:
        """Trains an experiment with a seed."""
        experiment = EXPERIMENTS[name]
        directory = self.args.workdir / name / f"seed-{seed}"
        flags = [f"--config.{key}={value}" for key, value in experiment.overrides.items()]
        command = ["-m", "jaxcifar.main", f"--config=configs/{experiment.config}.py", *flags]
        own = [*self.data_flags(), f"--config.seed={seed}", f"--workdir={directory}"]
        if experiment.is_corrupted:
            own.append(f"--config.eval.ood_dir={self.corrupted.result()}")
        _run([sys.executable, *command, *own, "--config.wandb.mode=disabled"], directory)
        lines = (directory / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        summary = json.loads((directory / "summary.json").read_text())
        scores = ("test_acc", "test_loss", "best_val_acc", "best_epoch", "ood_acc")
        run = {key: summary[key] for key in (*scores, "ood_acc_standard") if key in summary}
        run |= {key: [record[key] for record in records] for key in ("val_acc", "train_loss", "lr")}
        evaluation = json.loads((directory / "evaluation.json").read_text())
        if corruptions := evaluation.get("corruptions"):
            accuracies = corruptions["accuracy"].items()  # at five severities
            run["ood_accs"] = {name: round(sum(row) / len(row), 2) for name, row in accuracies}
        about = {key: summary[key] for key in ("num_params", "device", "versions", "git")}
        about["class_names"] = json.loads((directory / "classes.json").read_text())
        about["steps_per_epoch"] = records[0]["step"]
        self.add(name, "jaxcifar", ["python", *command], seed, run, about)

    def train_peer(self, name: str, seed: int) -> None:
        """Trains an experiment with a seed in PyTorch."""
        log = self.args.workdir / name / f"pytorch-{seed}.jsonl"
        command = ["scripts/pytorch_baseline.py", *EXPERIMENTS[name].peer]
        own = [f"--data={self.args.data}", f"--seed={seed}", f"--workers={self.args.peer_workers}"]
        if not log.exists():
            path = str(SCRIPTS / pathlib.Path(command[0]).name)
            output = _run([self.args.peer_python, path, *command[1:], *own], log)
            log.write_text(output)
        output = log.read_text()
        records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        run = {"test_acc": float(re.search(r"^test accuracy ([\d.]+)%", output, re.M)[1])}
        run |= {key: [record[key] for record in records] for key in ("val_acc", "train_loss")}
        self.add(name, "pytorch", ["python", *command], seed, run, {})

    def add(
        self,
        name: str,
        side: str,
        command: list[str],
        seed: int,
        run: dict[str, Any],
        about: dict[str, Any],
    ) -> None:
        """Adds a run to the results, and writes them."""
        with self.lock:
            experiment = self.results.setdefault(name, {"processor": processor()})
            row = experiment.setdefault(side, {"command": shlex.join(command), **about, "runs": {}})
            row["runs"][str(seed)] = run
            self.args.output.write_text(json.dumps(self.results, indent=1) + "\n")

    def data_flags(self) -> list[str]:
        """Returns the flags that name the data."""
        return ["--config.data.name=folder", f"--config.data.dir={self.args.data}"]


def _run(command: list[str], place: pathlib.Path) -> str:
    """Runs a command and returns its output, which is kept beside `place` as it comes."""
    place.parent.mkdir(parents=True, exist_ok=True)
    log = place.with_name(f"{place.name}.log")
    print(shlex.join(command), flush=True)
    with open(log, "w") as file:
        subprocess.run(command, check=True, stdout=file, stderr=file)
    return log.read_text()


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--only", default=",".join(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=1, help="runs of each experiment")
    parser.add_argument("--parallel", type=int, default=1, help="runs at the same time")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/study"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("study.json"))
    parser.add_argument("--peer_python")
    parser.add_argument("--peer_workers", type=int, default=2)
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := set(names) - set(EXPERIMENTS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    Study(args).run(names)


if __name__ == "__main__":
    main()
