"""Shows how the cost of a run grows with images, epochs, classes and devices.

python scripts/growth.py [--config=configs/part1.py] [--output=FILE.json]

Images and epochs are measured: each row is a run of the training command on synthetic images.
Classes and devices are counted: XLA says what the compiled training step computes and holds on each
(virtual) device. Prints a table in Markdown.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
from benchmark import processor

from jaxcifar import config as config_lib
from jaxcifar import parallel
from jaxcifar.data import Splits
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.program import Program
from jaxcifar.run_schedule import RunSchedule

IMAGES, EPOCHS = (2_500, 5_000, 10_000, 20_000), (1, 4, 16, 64)
CLASSES, DEVICES = (10, 100, 1_000), (1, 2, 4, 8)

Row = dict[str, float]


def measure(config: str, num_images: int, num_epochs: int) -> tuple[float, float]:
    """Returns a run's seconds of training and validation, and the peak of its memory in MB."""
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory, "run")
        command = [sys.executable, "-m", "jaxcifar.main", f"--config={config}"]
        command += [f"--workdir={workdir}", "--config.wandb.mode=disabled"]
        command += ["--config.data.name=synthetic100", f"--config.data.synthetic_size={num_images}"]
        command += [f"--config.num_epochs={num_epochs}", "--config.model.pretrained="]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, process.returncode, usage = os.wait4(process.pid, 0)  # its own peak, not all children's
        if process.returncode:
            raise SystemExit(f"error: the run failed: {' '.join(command)}")
        summary = json.loads((workdir / "summary.json").read_text())
    return summary["wall_seconds"], usage.ru_maxrss / 1e3


def count(config_file: str, num_classes: int, num_devices: int) -> Row:
    """Returns what the compiled training step computes and holds on each device."""
    config = config_lib.load(config_file)
    config.model.pretrained = ""
    config.parallel.cpu_devices = num_devices
    labels = np.arange(4 * config.batch_size, dtype=np.int32) % num_classes
    images = np.zeros((len(labels), 32, 32, 3), np.uint8)
    part = Dataset(images, labels, tuple(map(str, range(num_classes))))
    program = Program(config, parallel.setup(config), Splits(part, part, part))
    values = RunSchedule(config, program.steps_per_epoch).epoch_values(0)
    state = program.init()
    num_params = state.num_params
    next(program.train_epoch(state, 0, values))
    (compiled,) = program.train_programs()
    return {
        "parameters": num_params,
        "GFLOP a step and device": compiled.cost_analysis()["flops"] / 1e9,
        "temporary MB on each": compiled.memory_analysis().temp_size_in_bytes / 1e6,
    }


def rows(config: str) -> Iterator[Row]:
    """Yields the table's rows."""
    measure(config, IMAGES[0], 1)  # compiles, and generates
    for num_images in IMAGES:
        measure(config, num_images, 1)  # generates
        seconds, megabytes = measure(config, num_images, 1)
        yield {"images": num_images, "seconds": seconds, "peak MB": megabytes}
    for num_epochs in EPOCHS:
        seconds, megabytes = measure(config, IMAGES[0], num_epochs)
        yield {"epochs": num_epochs, "seconds": seconds, "peak MB": megabytes}
    for num_classes in CLASSES:
        yield {"classes": num_classes} | count(config, num_classes, 1)
    for num_devices in DEVICES:
        yield {"devices": num_devices} | count(config, 100, num_devices)


def main() -> int:
    """Runs the command and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/part1.py")
    parser.add_argument("--output", default="", help="a JSON file for the figures")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    jax.devices()  # now, before a config asks for fewer
    results, heading = [], None
    for row in rows(args.config):
        if list(row) != heading:
            heading = list(row)
            print(f"\n| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
        cells = [
            f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in row.values()
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
        results.append(row)
    if args.output:
        machine = {"cores": os.cpu_count(), "processor": processor()}
        record = {"date": time.strftime("%Y-%m-%d"), "machine": machine, "rows": results}
        pathlib.Path(args.output).write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
