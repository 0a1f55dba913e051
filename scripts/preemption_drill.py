"""Shows that a run survives preemption: kills it at random moments, restarts it, and compares.

python scripts/preemption_drill.py --config=configs/part1.py [--kills=5] [--seed=0] [--output=DIR]
                                   [--config.KEY=VALUE ...]

It runs the training command twice in DIR (default: a temporary directory): once undisturbed, and
once killed with SIGKILL and restarted. Both must end with the same records, the same score and
the same parameters, bit for bit.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxcifar import cli
from jaxcifar.spec import ConfigError

_KILLS = flags.DEFINE_integer("kills", 5, "how many times to kill the run", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the moments")
_OUTPUT = flags.DEFINE_string("output", None, "directory of the two runs (default: temporary)")

TIMINGS = ("seconds", "images_per_second")


def main(config: ConfigDict) -> int:
    """Runs the drill; returns the exit code, 1 if the runs differ."""
    overrides = [flag for flag in sys.argv[1:] if flag.startswith("--config")]
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(_OUTPUT.value or temporary)
        if any((root / name).exists() for name in ("undisturbed", "killed")):
            raise ConfigError(f"--output={str(root)!r} holds an earlier drill; choose another")
        undisturbed, killed = root / "undisturbed", root / "killed"
        print("undisturbed run ...", flush=True)
        started = time.monotonic()
        run_to_the_end(undisturbed, overrides)
        seconds = time.monotonic() - started
        num_kills = kill_repeatedly(killed, overrides, seconds)
        run_to_the_end(killed, overrides)
        differences = compare(undisturbed, killed)
    for line in differences:
        print(f"DIFFERENT: {line}")
    if not differences:
        print(
            f"identical after {num_kills} kills: {config.num_epochs} epochs' records, the score "
            "and every parameter"
        )
    return 1 if differences else 0


def start(workdir: pathlib.Path, overrides: list[str]) -> subprocess.Popen:
    """Starts the training command."""
    command = [sys.executable, "-m", "jaxcifar.main", *overrides, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def run_to_the_end(workdir: pathlib.Path, overrides: list[str]) -> None:
    """Runs the training command to its end.

    Raises:
        ConfigError: it fails.
    """
    process = start(workdir, overrides)
    error = process.communicate()[1]
    if process.returncode:
        raise ConfigError(f"the training command failed: {error.strip().splitlines()[-1]}")


def kill_repeatedly(workdir: pathlib.Path, overrides: list[str], seconds: float) -> int:
    """Starts the run and kills it after a random time, again and again until it ends by itself;
    returns the number of kills.

    Args:
        workdir: the run's work directory.
        overrides: the training command's flags.
        seconds: how long an undisturbed run takes.
    """
    draw = random.Random(_SEED.value)
    for index in range(_KILLS.value):
        process = start(workdir, overrides)
        delay = draw.uniform(0.1, 0.6) * seconds
        try:
            process.wait(delay)
            print(f"start {index + 1} ended by itself within {delay:.1f} s", flush=True)
            return index
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.communicate()
        epochs = len(records(workdir))
        print(f"start {index + 1}: killed after {delay:.1f} s, {epochs} epochs done", flush=True)
    return _KILLS.value


def compare(first: pathlib.Path, second: pathlib.Path) -> list[str]:
    """Returns how two finished runs differ."""
    from jaxcifar import array_files, checkpoint_files  # lazy: --help should not wait for JAX

    lines = []
    if records(first) != records(second):
        lines.append("metrics.jsonl")
    scores = [json.loads((d / "summary.json").read_text())["test_loss"] for d in (first, second)]
    if scores[0] != scores[1]:
        lines.append(f"test loss {scores[0]} and {scores[1]}")
    for which in ("last", "best"):
        paths = [checkpoint_files.find_newest(d / "checkpoints" / which) for d in (first, second)]
        arrays, others = (array_files.read(path / "state") for path in paths)
        lines += [
            f"{which}: {name}"
            for name in arrays.keys() | others.keys()
            if name not in arrays
            or name not in others
            or not np.array_equal(arrays[name], others[name], equal_nan=True)
        ]
    return lines


def records(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Returns a run's records without their timings."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


if __name__ == "__main__":
    os.environ.setdefault("WANDB_MODE", "disabled")
    cli.launch(main, __doc__, (cli.CONFIG, _KILLS, _SEED, _OUTPUT), takes_config=True)
