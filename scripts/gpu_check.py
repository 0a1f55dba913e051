"""Measures part 3 on this machine's GPU, beside PyTorch, in less than nine minutes.

python scripts/gpu_check.py [--only=SECTION,...] [--data=DIR] [--minutes=9] [--output=FILE.json]

machine   versions; FLOP/s of a matrix product; memory bandwidth of a copy
steps     training steps under several compiler options, data types and batch sizes
profile   where a step's time goes
pytorch   PyTorch's training step, compiled in each of its modes
parts     evaluation, the copy of the state that is saved, augmentation, and its values against the
          CPU's
starts    2 epochs by the command from an empty cache, and again: seconds to each of its lines, and
          whether both runs are the same, bit for bit
full      all 50 epochs by the command, a second start after `starts`

Each section is a process of its own, ends at a limit of its own, and adds to the JSON as it ends.
--data is an image folder (train/<class>/*, test/<class>/*); without it the images are synthetic. On
a machine without a GPU it measures less, of small sizes, to show that it works.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from benchmark_workers import ROOT, JaxWorker, TorchWorker, load_arrays

FORWARD_FLOPS = 2 * 0.556e9  # per image, of a ResNet-18 with the CIFAR stem
STEPS = 208  # of an epoch that is timed: four device calls
SECONDS = {  # limits
    "machine": 60,
    "steps": 100,
    "profile": 60,
    "pytorch": 100,
    "parts": 60,
    "starts": 150,
    "full": 180,
}


def on_gpu() -> bool:
    """Returns whether JAX has a GPU."""
    import jax

    return jax.default_backend() == "gpu"


def machine() -> Iterator[dict[str, Any]]:
    """Versions, the GPU, and its two ceilings."""
    import jax
    import jax.numpy as jnp

    from jaxcifar import environment

    yield {"versions": environment.versions(), "device": jax.devices()[0].device_kind}
    with contextlib.suppress(OSError):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"]
        yield {"nvidia-smi": subprocess.run(query, capture_output=True, text=True).stdout.strip()}
    yield {"matrix product, TFLOP/s": JaxWorker([]).matmul_flops() / 1e12}
    size = (4 << 30) if on_gpu() else (64 << 20)
    copy = jax.jit(lambda x: x + 1)  # a plain copy may not move anything
    values = jax.block_until_ready(copy(jnp.zeros(size // 4)))
    times = [_seconds(lambda: jax.block_until_ready(copy(values))) for _ in range(5)]
    yield {"copy, GB/s": 2 * size / min(times) / 1e9}


@dataclasses.dataclass(frozen=True)
class Variant:
    """Training steps with other options."""

    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of XLA
    batch_size: int = 128
    dtype: str = "bfloat16"


VARIANTS = {
    "as it is": Variant(),
    "convolutions in CUDA graphs": Variant(
        {
            "xla_gpu_enable_command_buffer": (
                "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION,"
                "CONVOLUTION"
            )
        }
    ),
    "no CUDA graphs": Variant({"xla_gpu_enable_command_buffer": ""}),
    "deterministic operations only": Variant({"xla_gpu_exclude_nondeterministic_ops": True}),
    "batch 256": Variant(batch_size=256),
    "batch 512": Variant(batch_size=512),
    "float32 (TF32)": Variant(dtype="float32"),
    "no Triton": Variant({"xla_gpu_enable_triton_gemm": False}),
    "autotuning at level 2": Variant({"xla_gpu_autotune_level": 2}),
    "autotuning off": Variant({"xla_gpu_autotune_level": 0}),
}


def steps() -> Iterator[dict[str, Any]]:
    """Milliseconds of a training step, augmentation included, and seconds to compile it."""
    for name in VARIANTS if on_gpu() else list(VARIANTS)[:1]:
        try:
            yield {name: measure_variant(VARIANTS[name])}
        except Exception as error:  # one that cannot run leaves the others
            yield {name: {"error": f"{type(error).__name__}: {error}"[:300]}}


def measure_variant(variant: Variant) -> dict[str, float]:
    """Returns a variant's figures."""
    with variant_worker(variant) as (worker, first_seconds):
        times = [worker.epoch() for _ in range(5)]
    count = len(worker.train_images)
    batch_size = worker.config.batch_size
    milliseconds = 1e3 * statistics.median(times) * batch_size / count
    return {
        "ms per step": milliseconds,
        "lowest": 1e3 * min(times) * batch_size / count,
        "highest": 1e3 * max(times) * batch_size / count,
        "images/s": 1e3 * batch_size / milliseconds,
        "TFLOP/s": 3 * FORWARD_FLOPS * batch_size / milliseconds / 1e9,
        "seconds to compile": first_seconds,
    }


@contextlib.contextmanager
def variant_worker(variant: Variant) -> Iterator[tuple[JaxWorker, float]]:
    """Yields a worker whose program is compiled, and how long that took."""
    from jaxcifar import parallel

    num_steps = STEPS if on_gpu() else 1
    with mock.patch.dict(parallel.GPU_COMPILER_OPTIONS, variant.options):
        worker = JaxWorker(load_arrays(""))
        if on_gpu() and parallel.compiler_options(worker.mesh) != parallel.GPU_COMPILER_OPTIONS:
            raise ValueError("XLA does not know the options")
        seconds = _seconds(
            lambda: worker.prepare(
                part=3,
                batch_size=variant.batch_size if on_gpu() else 8,
                train_images=num_steps * (variant.batch_size if on_gpu() else 8),
                test_images=10_000 if on_gpu() else 16,
                augment=True,
                dtype=variant.dtype,
            )
        )
    yield worker, seconds


KERNELS = {  # kinds by what is in their names
    "convolution and matrix product": r"conv|xmma|cutlass|cudnn|gemm|nvjet|winograd|dgrad|wgrad",
    "reduction": r"reduce",
    "elementwise": r"loop|wrapped|fusion|add|convert|select",
    "copy": r"mem(cpy|set)|copy|transpose",
}


def profile() -> Iterator[dict[str, Any]]:
    """The time of an epoch's kernels, by kind and by name."""
    import jax

    variant = VARIANTS["no CUDA graphs"]  # whose kernels a profile would not tell apart
    with variant_worker(variant) as (worker, _), tempfile.TemporaryDirectory() as directory:
        worker.epoch()
        with jax.profiler.trace(directory):
            seconds = worker.epoch()
        file = next(pathlib.Path(directory).rglob("*.xplane.pb"))
        kernels = device_kernels(jax.profiler.ProfileData.from_file(str(file)))
    count = len(worker.train_images) / worker.config.batch_size
    total = sum(time for time, _ in kernels.values())
    kinds = dict.fromkeys((*KERNELS, "other"), 0.0)
    for name, (time_, _) in kernels.items():
        kind = next((k for k, p in KERNELS.items() if re.search(p, name, re.I)), "other")
        kinds[kind] += time_
    yield {"ms per step": {kind: 1e3 * time_ / count for kind, time_ in kinds.items()}}
    yield {"ms per step without a kernel": 1e3 * (seconds - total) / count}
    yield {"kernels per step": sum(number for _, number in kernels.values()) / count}
    longest = sorted(kernels.items(), key=lambda item: -item[1][0])[:40]
    yield {
        "longest, ms per step": {
            name[:120]: [1e3 * time_ / count, number / count] for name, (time_, number) in longest
        }
    }


def device_kernels(data: Any) -> dict[str, tuple[float, int]]:
    """Returns seconds and number of calls by kernel, from a profile."""
    kernels: dict[str, tuple[float, int]] = {}
    for plane in data.planes:
        if "/device:GPU" not in plane.name:
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                time_, number = kernels.get(event.name, (0.0, 0))
                kernels[event.name] = time_ + event.duration_ns / 1e9, number + 1
    return kernels


def pytorch() -> Iterator[dict[str, Any]]:
    """Milliseconds of PyTorch's training step, its data on the device, no augmentation."""
    import torch

    batch_size, num_steps = (128, STEPS) if torch.cuda.is_available() else (8, 1)
    for mode in (None, "reduce-overhead", "max-autotune-no-cudagraphs"):
        worker = TorchWorker(load_arrays(""))
        try:
            seconds = _seconds(
                lambda worker=worker, mode=mode: worker.prepare(
                    part=3,
                    batch_size=batch_size,
                    train_images=batch_size * num_steps,
                    test_images=16,
                    augment=False,
                    compile_mode=mode,
                )
            )
            times = [worker.epoch() for _ in range(5)]
        except Exception as error:
            yield {mode or "default": {"error": f"{type(error).__name__}: {error}"[:300]}}
            continue
        yield {
            mode or "default": {
                "ms per step": 1e3 * statistics.median(times) / num_steps,
                "lowest": 1e3 * min(times) / num_steps,
                "highest": 1e3 * max(times) / num_steps,
                "seconds to compile": seconds,
            }
        }
        if not torch.cuda.is_available():
            break


def parts() -> Iterator[dict[str, Any]]:
    """What an epoch has beside its steps."""
    import jax

    from jaxcifar import augment

    with variant_worker(Variant()) as (worker, _):
        pass
    worker.evaluate()
    times = [worker.evaluate() for _ in range(5)]
    yield {"evaluation of 10,000 images, ms": 1e3 * statistics.median(times)}
    jax.block_until_ready(worker.program.snapshot(worker.state))
    times = [
        _seconds(lambda: jax.block_until_ready(worker.program.snapshot(worker.state)))
        for _ in range(5)
    ]
    yield {"copy of the state, ms": 1e3 * statistics.median(times)}
    count = 200_000 if on_gpu() else 64
    yield {"augmentation, images/s": count / worker.augment(count)}
    images = worker.train_images[:64] / np.float32(255)
    transform = jax.jit(jax.vmap(augment.parse(worker.config.augment)))
    keys = jax.random.split(jax.random.key(0), len(images))
    outputs = []
    for platform in ("cpu", jax.default_backend()):
        with jax.default_device(jax.devices(platform)[0]):
            outputs.append(np.asarray(transform(keys, images)))
    difference = np.abs(outputs[0] - outputs[1])
    yield {
        "augmentation, largest difference from the CPU": float(difference.max()),
        "augmentation, share of values that differ by more than 1e-3": float(
            (difference > 1e-3).mean()
        ),
    }


def starts(data: str) -> Iterator[dict[str, Any]]:
    """Two runs of the command, the first from an empty cache."""
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        digests = []
        for name in ("first", "second"):
            lines = run_command(root / name, data, num_epochs=2)
            yield {f"{name} run, seconds to": lines}
            digests.append(run_digests(root / name))
        yield {"the same bits in": {key: digests[0][key] == digests[1][key] for key in digests[0]}}


def run_digests(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what two equal runs have in common: their losses, and the best model's bits."""
    from jaxcifar import checkpoint
    from jaxcifar.models import functional

    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    model = checkpoint.load_model(workdir)
    _, *trees = functional.split_eval(model)
    arrays = functional.flatten(trees[0]) | functional.flatten(trees[1])
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.asarray(arrays[name]).tobytes())
    return {
        "the losses": [(r["train_loss"], r["val_loss"]) for r in records],
        "the best model": digest.hexdigest(),
    }


def full(data: str) -> Iterator[dict[str, Any]]:
    """All epochs of part 3."""
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        epochs = None if on_gpu() else 1
        yield {"seconds to": run_command(root / "run", data, num_epochs=epochs)}
        summary = json.loads((root / "run" / "summary.json").read_text())
        yield {key: summary[key] for key in ("test_acc", "images_per_second", "wall_seconds")}


def run_command(workdir: pathlib.Path, data: str, num_epochs: int | None) -> dict[str, float]:
    """Runs part 3 and returns the seconds from the command to each line that it printed."""
    command = [sys.executable, "-m", "jaxcifar.main", f"--config={ROOT}/configs/part3.py"]
    command += [
        f"--workdir={workdir}",
        "--config.model.pretrained=",
        "--config.wandb.mode=disabled",
    ]
    if data:
        command += ["--config.data.name=folder", f"--config.data.dir={data}"]
    else:
        command += ["--config.data.name=synthetic100"]
    if num_epochs:
        command += [f"--config.num_epochs={num_epochs}"]
    if on_gpu():
        command += ["--config.dtype=bfloat16"]
    else:
        command += ["--config.model.width=4", "--config.batch_size=8", "--config.data.limit=16"]
        command += [] if data else ["--config.data.synthetic_size=600"]
    started, lines = time.perf_counter(), {}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "JAXCIFAR_CACHE": os.environ["COMMANDS_CACHE"]},
        cwd=ROOT,
    )
    for line in process.stdout:
        lines[line.strip()[:100]] = round(time.perf_counter() - started, 2)
    lines["the end"] = round(time.perf_counter() - started, 2)
    if process.wait():
        lines[f"exit code {process.returncode}"] = lines["the end"]
    return lines


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


# --- the command ----------------------------------------------------------------------------------


def run_section(name: str, data: str, cache: str, seconds: float) -> dict[str, Any]:
    """Runs a section in a process of its own and returns its figures, with an "error" if it did
    not end well.
    """
    command = [sys.executable, __file__, f"--section={name}", f"--data={data}"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a section's own commands use the GPU, too
        "JAXCIFAR_CACHE": f"{cache}/sections",
        "COMMANDS_CACHE": f"{cache}/commands",
    }
    figures: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=environment, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and the commands that it runs
            process.wait()
            figures["error"] = f"not finished after {seconds:.0f} s"
        output.seek(0)
        errors.seek(0)
        for line in output:
            if line.startswith("{"):
                figures |= json.loads(line)
        if process.returncode and "error" not in figures:
            figures["error"] = errors.read()[-2000:]
    return figures


def flatten(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every figure with the path of its keys."""
    for name, value in figures.items():
        path = f"{prefix}, {name}" if prefix else name
        if isinstance(value, dict):
            yield from flatten(value, path)
        else:
            yield path, value


def main() -> int:
    """Runs the command and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECONDS), help="sections, in their order")
    parser.add_argument("--data", default="", help="an image folder")
    parser.add_argument("--minutes", type=float, default=9, help="limit of the whole")
    parser.add_argument("--output", default="gpu_check.json", help="the JSON file")
    parser.add_argument("--section", choices=SECONDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.section:
        section = globals()[args.section]
        figures = section(args.data) if args.section in ("starts", "full") else section()
        for figure in figures:
            print(json.dumps(figure), flush=True)
        return 0
    names = args.only.split(",")
    for name in names:
        if name not in SECONDS:
            parser.error(f"--only={name}: the sections are {', '.join(SECONDS)}")
    deadline, results = time.monotonic() + 60 * args.minutes, {}
    with tempfile.TemporaryDirectory() as cache:
        for name in names:
            started, left = time.monotonic(), deadline - time.monotonic()
            results[name] = (
                run_section(name, args.data, cache, min(SECONDS[name], left))
                if left > 10
                else {"error": f"left out: {args.minutes:g} minutes are over"}
            )
            results[name]["seconds"] = round(time.monotonic() - started, 1)
            pathlib.Path(args.output).write_text(json.dumps(results, indent=1) + "\n")
            for path, value in flatten(results[name], name):
                print(f"{path:<90} {value:.4g}" if isinstance(value, float) else f"{path}: {value}")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
