"""Compares jaxcifar's speed with PyTorch's on this machine.

python scripts/benchmark.py [--model=simple_cnn|resnet18|part1|part2|part3|corruptions|all]
                            [--peer=pytorch|none] [--processes=N] [--rounds=N]
                            [--data=FILE.npz] [--output=FILE.json]

simple_cnn and resnet18 measure training steps (batches of 128 and of 64, the data in memory on both
sides, no augmentation) and evaluation. part1, part2 and part3 measure full epochs, data and
augmentation included (the peer's in DataLoader workers), the augmentation alone, and the time from
the command to the first step. corruptions measures generating each of them at all severities (the
peer has none). Each side runs in fresh processes, as training runs do; rounds
alternate, and a figure is the median of all rounds, with the lowest and the highest. On a CPU
--processes=3 --rounds=2 is more reliable than --processes=1: PyTorch's speed differs by up to a
quarter from one process to the next. Without --data the images are noise, which costs the same. The
two sides are in scripts/benchmark_workers.py, the peer's recipes in scripts/pytorch_baseline.py.
"""

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from benchmark_workers import ROOT, Worker

from jaxcifar import optional


class Workload(NamedTuple):
    """One --model choice."""

    part: int  # part of the study
    batch_sizes: tuple[int, ...]
    cpu_images: int  # training images of a round's epoch on a CPU: 2 to 10 seconds
    forward_flops: float = 0  # per image, 2 per multiply-add; 0 for a full part


WORKLOADS = {
    "simple_cnn": Workload(1, (128, 64), 5120, 2 * 11.4e6),
    "resnet18": Workload(2, (128, 64), 512, 2 * 0.556e9),
    "part1": Workload(1, (128,), 12_800),
    "part2": Workload(2, (64,), 640),
    "part3": Workload(3, (128,), 640),
}


def first_step_seconds(part: int, cache: str) -> float:
    """Returns the seconds from the training command to the end of its first step."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "jaxcifar.main", f"--workdir={workdir}/run"]
        command += [f"--config={ROOT}/configs/part{part}.py", "--config.model.pretrained="]
        command += ["--config.wandb.mode=disabled", "--config.data.name=synthetic100"]
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAXCIFAR_CACHE": cache, "PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
        )
        for line in process.stdout:
            if "first step" in line:
                seconds = time.perf_counter() - started
                process.kill()
                process.wait()
                return seconds
        raise SystemExit("error: the training command ended before its first step")


# --- the run --------------------------------------------------------------------------------------


def summary(seconds: dict[str, list[float]], num_images: int) -> dict[str, Any]:
    """Returns each side's median, lowest and highest images/s, and the medians' ratio."""
    row = {
        name: {
            "median": num_images / statistics.median(values),
            "low": num_images / max(values),
            "high": num_images / min(values),
        }
        for name, values in seconds.items()
    }
    if "pytorch" in row:
        row["ratio"] = row["jaxcifar"]["median"] / row["pytorch"]["median"]
    return row


@contextlib.contextmanager
def fresh_workers(names: list[str], data: str, recipe: dict[str, Any]) -> Iterator[list[Worker]]:
    """Yields a fresh process of each side, with the recipe prepared, and ends them.

    Like real runs, each recipe runs in a fresh process: what a process did before changes its speed
    (glibc's allocator adapts), and so does where its memory happens to be.
    """
    workers = [Worker(name, data) for name in names]
    try:
        for worker in workers:
            worker.num_images = worker.ask("prepare", **recipe)
        yield workers
    finally:
        for worker in workers:
            worker.close()


def benchmark(
    model: str,
    args: argparse.Namespace,
    names: list[str],
    matmul_flops: float,
    on_gpu: bool,
    report: Callable[[str, dict[str, Any]], None],
) -> None:
    """Measures the workers on a model, and calls `report` with each figure's title and row."""
    workload = WORKLOADS[model]
    is_full_part = not workload.forward_flops
    train_images = (40_000 if is_full_part else 12_800) if on_gpu else workload.cpu_images
    test_images = 10_000 if on_gpu or model == "simple_cnn" else 1000
    for batch_size in workload.batch_sizes:
        recipe = {"part": workload.part, "batch_size": batch_size, "augment": is_full_part}
        recipe |= {"train_images": train_images, "test_images": test_images}
        step = "end to end" if is_full_part else f"training step, batch {batch_size}"
        requests = {step: {"do": "epoch"}}
        if not is_full_part and batch_size == 128:
            requests["evaluation"] = {"do": "evaluate"}
        if model == "part3":
            requests["augmentation alone"] = {"do": "augment", "count": 4 * train_images}
        seconds = {title: {name: [] for name in names} for title in requests}
        for _ in range(args.processes):
            with fresh_workers(names, args.data, recipe) as workers:
                for title, request in requests.items():
                    if request["do"] != "epoch":  # prepare already ran one
                        for worker in workers:
                            worker.ask(**request)
                    for _ in range(args.rounds):
                        for worker in workers:
                            seconds[title][worker.name].append(worker.ask(**request))
        num_images = {
            step: workers[0].num_images["train"],
            "evaluation": workers[0].num_images["test"],
            "augmentation alone": 4 * train_images,
        }
        for title in requests:
            row = summary(seconds[title], num_images[title])
            if title.startswith("training step"):
                training_flops = 3 * workload.forward_flops * row["jaxcifar"]["median"]
                row["utilization"] = training_flops / matmul_flops
            report(f"{model}: {title}, images/s", row)
        if is_full_part:
            peaks = {worker.name: {"median": worker.peak_mib} for worker in workers}
            report(f"{model}: peak memory of the process, MiB", peaks)


def benchmark_corruptions(
    args: argparse.Namespace, report: Callable[[str, dict[str, Any]], None]
) -> None:
    """Measures every available corruption, and `report`s each and all of them together."""
    count, total, num_made = 2048, [0.0] * args.rounds, 0
    worker = Worker("jaxcifar", args.data)
    for name in worker.ask("corruptions"):
        worker.ask("corrupt", name=name, count=count)  # compiles
        seconds = [worker.ask("corrupt", name=name, count=count) for _ in range(args.rounds)]
        total = [a + b for a, b in zip(total, seconds, strict=True)]
        num_made += 5 * count
        report(f"corruptions: {name}, images/s", summary({"jaxcifar": seconds}, 5 * count))
    worker.close()
    report("corruptions: all of them, images/s", summary({"jaxcifar": total}, num_made))


def format_row(title: str, row: dict[str, Any]) -> str:
    """Returns a figure as a line of the Markdown table."""
    cells = []
    for side in ("jaxcifar", "pytorch"):
        figure = row.get(side, {})
        cells.append(f"{figure['median']:,.{1 if title.endswith(', s') else 0}f}" if figure else "")
        if "low" in figure:
            cells[-1] += f" ({figure['low']:,.0f}-{figure['high']:,.0f})"
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
    share = f"{100 * row['utilization']:.0f}%" if "utilization" in row else ""
    return f"| {title} | {cells[0]} | {cells[1]} | {ratio} | {share} |"


def processor() -> str:
    """Returns the name of the processor."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exits with 2 if an argument is not valid, before anything is measured."""
    for name in ("processes", "rounds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)} must be 1 or more")
    if args.data:
        try:
            with np.load(args.data) as arrays:
                missing = {f"{s}_{k}" for s in ("train", "test") for k in ("images", "labels")}
                missing -= set(arrays)
        except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
            parser.error(f"--data={args.data!r} is not a readable .npz: {error}")
        if missing:
            parser.error(f"--data={args.data!r} lacks {', '.join(sorted(missing))}")
    if args.output:
        try:
            with open(args.output, "a"):
                pass
        except OSError as error:
            parser.error(f"--output={args.output!r} cannot be written: {error.strerror}")
    if args.peer == "pytorch" and importlib.util.find_spec("torch") is None:
        parser.error(f"choose --peer=none, or install PyTorch: {optional.install('torch')}")


def main() -> int:
    """Runs the command and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=(*WORKLOADS, "corruptions", "all"), default="all")
    parser.add_argument("--peer", choices=("pytorch", "none"), default="pytorch")
    parser.add_argument("--data", default="", help="an .npz: {train,test}_{images,labels}")
    parser.add_argument("--output", default="", help="a JSON file for the figures")
    parser.add_argument("--processes", type=int, default=1, help="processes per side")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per process")
    args = parser.parse_args()
    check_arguments(parser, args)
    names = ["jaxcifar"] + ["pytorch"] * (args.peer == "pytorch")
    machine = {}
    for name in names:
        worker = Worker(name, args.data)
        machine |= worker.ask("describe")
        if name == "jaxcifar":
            matmul_flops = worker.ask("matmul_flops")
        worker.close()
    on_gpu = machine["device"] != "cpu"
    models = [*WORKLOADS, "corruptions"] if args.model == "all" else [args.model]
    print(f"| on {machine['device']} | jaxcifar | PyTorch | ratio | share of matmul FLOP/s |")
    print("|---|---|---|---|---|", flush=True)
    rows = {"matrix product, FLOP/s": matmul_flops}

    def report(title: str, row: dict[str, Any]) -> None:
        rows[title] = row
        print(format_row(title, row), flush=True)

    for model in models:
        if model == "corruptions":
            benchmark_corruptions(args, report)
            continue
        benchmark(model, args, names, matmul_flops, on_gpu, report)
        if not WORKLOADS[model].forward_flops:
            with tempfile.TemporaryDirectory() as cache:
                for start in ("first", "second"):
                    seconds = first_step_seconds(WORKLOADS[model].part, cache)
                    row = {"jaxcifar": {"median": seconds}}
                    report(f"{model}: {start} start, command to first step, s", row)
    if args.output:
        results = {
            "command": " ".join(["python", "scripts/benchmark.py", *sys.argv[1:]]),
            "date": datetime.date.today().isoformat(),
            "machine": {"cores": os.cpu_count(), "processor": processor()},
            "versions": machine,
            "figures": rows,
        }
        pathlib.Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
