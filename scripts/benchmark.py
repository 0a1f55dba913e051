"""How fast jaxcifar is beside PyTorch, on this machine, in one run.

python scripts/benchmark.py [--model=simple_cnn|resnet18|part1|part2|part3|all]
                            [--peer=pytorch|none] [--processes=N] [--rounds=N]
                            [--data=FILE.npz] [--output=FILE.json]

simple_cnn and resnet18 measure training steps (batches of 128 and of 64, the data in memory on both
sides, no augmentation) and evaluation. part1, part2 and part3 measure whole epochs, data and
augmentation included (the peer's in DataLoader workers), the augmentation alone, and the time from
the command to the first step. Each side runs in fresh processes, as training runs do; rounds
alternate, and a figure is the median of all rounds, with the lowest and the highest. On a CPU
--processes=3 --rounds=2 says more than --processes=1: PyTorch's speed differs by up to a quarter
from one process to the next. Without --data the images are noise, which costs the same. The peer's
recipes are those of scripts/pytorch_baseline.py.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Subject(NamedTuple):
    """What is measured under a --model."""

    part: int  # whose recipe it is
    batch_sizes: tuple[int, ...]
    cpu_images: int  # training images of a round's epoch on a CPU: 2 to 10 seconds
    forward_flops: float = 0  # of an image: two for each multiply-add; 0: a whole part


SUBJECTS = {
    "simple_cnn": Subject(1, (128, 64), 5120, 2 * 11.4e6),
    "resnet18": Subject(2, (128, 64), 512, 2 * 0.556e9),
    "part1": Subject(1, (128,), 12_800),
    "part2": Subject(2, (64,), 640),
    "part3": Subject(3, (128,), 640),
}
NUM_CLASSES = 100


def load_arrays(path: str) -> list[np.ndarray]:
    """Returns train images, train labels, test images, test labels: from an .npz, or noise."""
    if path:
        arrays = np.load(path)
        return [arrays[f"{s}_{kind}"] for s in ("train", "test") for kind in ("images", "labels")]
    rng = np.random.default_rng(0)
    arrays = []
    for count in (50_000, 10_000):
        arrays.append(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
        arrays.append(rng.integers(0, NUM_CLASSES, count, dtype=np.int32))
    return arrays


# --- our side -------------------------------------------------------------------------------------


class Ours:
    """jaxcifar's side: what a benchmark process does when it is asked."""

    def __init__(self, arrays: list[np.ndarray]):
        """Keeps the arrays and starts the devices; `prepare` chooses what is measured."""
        from jaxcifar import config, parallel

        self.arrays = arrays
        self.mesh = parallel.setup(config.default())

    def prepare(self, part: int, batch_size: int, train_images: int, augment: bool) -> dict:
        """Compiles a recipe's training and evaluation, and runs each once."""
        import jax

        from jaxcifar import config, evaluate, hyperparameters, optimizers, parallel, step, train

        on_gpu = jax.default_backend() == "gpu"
        c = config.load(str(ROOT / "configs" / f"part{part}.py"))
        c.batch_size = batch_size
        c.num_epochs = 1
        c.model.pretrained = ""
        c.dtype = "bfloat16" if on_gpu else "float32"
        if not augment:
            c.augment = ""
        mesh = self.mesh
        optimizer = optimizers.create(c)
        network, state = step.init_state(c, optimizer, NUM_CLASSES, mesh)
        pairs = (self.arrays[0][:train_images], self.arrays[1][:train_images]), self.arrays[2:]
        everywhere = parallel.replicated(mesh)
        data, test = (jax.device_put((x, y.astype(np.int32)), everywhere) for x, y in pairs)
        steps = -(-train_images // batch_size)
        schedule = hyperparameters.create(c, steps)
        self.table = hyperparameters.tabulate(c, schedule, 0, steps)
        self.train_epoch = train.make_train_epoch(
            network, optimizer, c, NUM_CLASSES, mesh, data, Silence()
        )
        self.evaluate_fn = evaluate.make_evaluate(network, c, mesh)
        self.test, self.state, self.new_progress = test, state, lambda: train.Progress(data="")
        self.config, self.images = c, data[0]
        self.epoch()
        return {"steps": steps}

    def epoch(self) -> float:
        """Returns the seconds of one epoch."""
        started = time.perf_counter()
        self.state = self.train_epoch(self.state, self.new_progress(), self.table, [])
        return time.perf_counter() - started

    def evaluate(self, count: int) -> float:
        """Returns the seconds of scoring `count` test images."""
        images, labels = (array[:count] for array in self.test)
        started = time.perf_counter()
        self.evaluate_fn(**self.state.model, images=images, labels=labels)
        return time.perf_counter() - started

    def augment(self, count: int) -> float:
        """Returns the seconds of augmenting `count` images in batches."""
        import jax
        import jax.numpy as jnp

        from jaxcifar import augment, parallel

        transform = augment.parse(self.config.augment)
        size = self.config.batch_size * (1 if jax.default_backend() == "cpu" else 64)

        @jax.jit
        def run(images, key):
            images, keys = parallel.split_batch(
                self.mesh, images[:size] / jnp.float32(255), jax.random.split(key, size)
            )
            return jax.vmap(transform)(keys, images)

        jax.block_until_ready(run(self.images, jax.random.key(0)))
        calls = -(-count // size)
        started = time.perf_counter()
        for call in range(calls):
            out = run(self.images, jax.random.key(call))
        jax.block_until_ready(out)
        return (time.perf_counter() - started) * count / (calls * size)

    def ceiling(self) -> float:
        """Returns the FLOP/s of a large matrix product: bfloat16 on a GPU, float32 on a CPU."""
        import jax
        import jax.numpy as jnp

        on_gpu = jax.default_backend() == "gpu"
        size, dtype = (8192, jnp.bfloat16) if on_gpu else (3072, jnp.float32)
        a = jnp.ones((size, size), dtype)
        product = jax.jit(lambda a: a @ a)
        jax.block_until_ready(product(a))
        best = 0.0
        for _ in range(5):
            started = time.perf_counter()
            jax.block_until_ready([product(a) for _ in range(10 if on_gpu else 1)])
            rate = 2 * size**3 * (10 if on_gpu else 1) / (time.perf_counter() - started)
            best = max(best, rate)
        return best

    def about(self) -> dict[str, Any]:
        """Returns the versions and the device."""
        import jax

        return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}


class Silence:
    """A tracker that hears and says nothing."""

    def update(self, *args: Any) -> None:
        """Ignores the progress."""

    def say(self, text: str) -> None:
        """Ignores the line."""


# --- the peer -------------------------------------------------------------------------------------


class Peer:
    """PyTorch's side."""

    def __init__(self, arrays: list[np.ndarray]):
        """Keeps the arrays; `prepare` chooses what is measured."""
        self.arrays = arrays

    def prepare(self, part: int, batch_size: int, train_images: int, augment: bool) -> dict:
        """Makes a recipe's model and data, and runs each once."""
        import pytorch_baseline as baseline
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        recipe = baseline.make_recipe(part, NUM_CLASSES, self.device)._replace(
            batch_size=batch_size
        )
        images, labels = self.arrays[0][:train_images], self.arrays[1][:train_images]
        if augment:
            loader = torch.utils.data.DataLoader(
                baseline.Images(images, labels, recipe.transform),
                batch_size,
                shuffle=True,
                num_workers=os.cpu_count(),
                persistent_workers=True,
                pin_memory=self.device.type == "cuda",
            )
            self.batches = loader
        else:  # in memory, normalised, on the device
            self.batches = self._in_memory(images, labels, batch_size)
        self.test = self._in_memory(self.arrays[2], self.arrays[3], 1000)
        self.recipe, self.step = recipe, baseline.make_train_step(recipe, self.device)
        self.baseline, self.torch = baseline, torch
        self.epoch()
        return {"steps": -(-train_images // batch_size)}

    def _in_memory(self, images: np.ndarray, labels: np.ndarray, size: int) -> list:
        import pytorch_baseline as baseline
        import torch

        return [
            (
                baseline.to_device(
                    torch.stack([baseline.plain_transform(x) for x in images[low : low + size]]),
                    self.device,
                ),
                torch.from_numpy(labels[low : low + size]).long().to(self.device),
            )
            for low in range(0, len(labels), size)
        ]

    def epoch(self) -> float:
        """Returns the seconds of one epoch."""
        started = time.perf_counter()
        for images, labels in self.batches:
            images = self.baseline.to_device(images, self.device)
            loss, _ = self.step(images, labels.to(self.device, non_blocking=True))
        loss.item()
        return time.perf_counter() - started

    def evaluate(self, count: int) -> float:
        """Returns the seconds of scoring `count` test images."""
        started = time.perf_counter()
        self.baseline.evaluate(self.recipe, self.test[: count // 1000], self.device)
        return time.perf_counter() - started

    def augment(self, count: int) -> float:
        """Returns the seconds of augmenting `count` images in the DataLoader's workers."""
        started, made = time.perf_counter(), 0
        while made < count:
            for _, labels in self.batches:
                made += len(labels)
        return (time.perf_counter() - started) * count / made

    def about(self) -> dict[str, Any]:
        """Returns the version."""
        import torch

        return {"torch": torch.__version__}


# --- processes ------------------------------------------------------------------------------------


def serve(side: str, data: str) -> None:
    """Answers requests, a JSON line each, until standard input ends."""
    worker = {"jaxcifar": Ours, "pytorch": Peer}[side](load_arrays(data))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(worker, request.pop("do"))(**request)
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"reply": reply, "peak_mib": round(usage)}), file=replies, flush=True)


class Side:
    """A benchmark process, asked over its pipes."""

    def __init__(self, name: str, data: str):
        """Starts the process."""
        self.name, self.peak_mib = name, 0
        command = [sys.executable, __file__, f"--side={name}", f"--data={data}"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Returns the reply to a request."""
        self.process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: the {self.name} process ended; what it said is above")
        reply = json.loads(line)
        self.peak_mib = reply["peak_mib"]
        return reply["reply"]

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


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


def summary(seconds: dict[str, list[float]], work: float) -> dict[str, Any]:
    """Returns each side's median, lowest and highest work per second, and the medians' ratio."""
    row = {
        name: {
            "median": work / statistics.median(values),
            "low": work / max(values),
            "high": work / min(values),
        }
        for name, values in seconds.items()
    }
    if "pytorch" in row:
        row["ratio"] = row["jaxcifar"]["median"] / row["pytorch"]["median"]
    return row


@contextlib.contextmanager
def started(names: list[str], data: str, **recipe: Any) -> Iterator[list[Side]]:
    """Gives a fresh process of each side, with the recipe prepared, and ends them.

    Every training run is a process of its own: what it did before changes its speed (glibc's
    allocator learns), and so does where its memory happens to lie.
    """
    sides = [Side(name, data) for name in names]
    try:
        for side in sides:
            side.ask("prepare", **recipe)
        yield sides
    finally:
        for side in sides:
            side.close()


def benchmark(
    model: str,
    args: argparse.Namespace,
    names: list[str],
    ceiling: float,
    on_gpu: bool,
    add: Callable[[str, dict[str, Any]], None],
) -> None:
    """Measures the sides on a model, and calls `add` with each figure's title and row."""
    subject = SUBJECTS[model]
    is_study = not subject.forward_flops
    images = (40_000 if is_study else 12_800) if on_gpu else subject.cpu_images
    tests = 10_000 if on_gpu or model == "simple_cnn" else 1000
    for batch_size in subject.batch_sizes:
        recipe = {"part": subject.part, "batch_size": batch_size, "train_images": images}
        step = "end to end" if is_study else f"training step, batch {batch_size}"
        requests = [(step, images, {"do": "epoch"})]
        if not is_study and batch_size == 128:
            requests.append(("evaluation", tests, {"do": "evaluate", "count": tests}))
        if model == "part3":
            count = 4 * images
            requests.append(("augmentation alone", count, {"do": "augment", "count": count}))
        seconds = {title: {name: [] for name in names} for title, _, _ in requests}
        for _ in range(args.processes):
            with started(names, args.data, augment=is_study, **recipe) as sides:
                for title, _, request in requests:
                    if request["do"] != "epoch":  # of which `prepare` has made one
                        for side in sides:
                            side.ask(**request)
                    for _ in range(args.rounds):
                        for side in sides:
                            seconds[title][side.name].append(side.ask(**request))
        for title, work, _ in requests:
            row = summary(seconds[title], work)
            if title.startswith("training step"):
                row["utilisation"] = 3 * subject.forward_flops * row["jaxcifar"]["median"] / ceiling
            add(f"{model}: {title}, images/s", row)
        if is_study:
            peaks = {side.name: {"median": side.peak_mib} for side in sides}
            add(f"{model}: peak memory of the process, MiB", peaks)


def format_row(title: str, row: dict[str, Any]) -> str:
    """Returns a figure as a line of the Markdown table."""
    cells = []
    for side in ("jaxcifar", "pytorch"):
        figure = row.get(side, {})
        cells.append(f"{figure['median']:,.{1 if title.endswith(', s') else 0}f}" if figure else "")
        if "low" in figure:
            cells[-1] += f" ({figure['low']:,.0f}-{figure['high']:,.0f})"
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
    share = f"{100 * row['utilisation']:.0f} %" if "utilisation" in row else ""
    return f"| {title} | {cells[0]} | {cells[1]} | {ratio} | {share} |"


def processor() -> str:
    """Returns what the processor is called."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def main() -> int:
    """Runs the command and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=(*SUBJECTS, "all"), default="all")
    parser.add_argument("--peer", choices=("pytorch", "none"), default="pytorch")
    parser.add_argument("--data", default="", help="an .npz: {train,test}_{images,labels}")
    parser.add_argument("--output", default="", help="a JSON file for the figures")
    parser.add_argument("--processes", type=int, default=1, help="of each side, one by one")
    parser.add_argument("--rounds", type=int, default=5, help="of each process")
    parser.add_argument("--side", choices=("jaxcifar", "pytorch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data and not pathlib.Path(args.data).is_file():
        print(f"error: --data={args.data!r} is not a file", file=sys.stderr)
        return 2
    if args.side:
        serve(args.side, args.data)
        return 0
    names = ["jaxcifar"] + ["pytorch"] * (args.peer == "pytorch")
    about = {}
    for name in names:
        side = Side(name, args.data)
        about |= side.ask("about")
        if name == "jaxcifar":
            ceiling = side.ask("ceiling")
        side.close()
    on_gpu = about["device"] != "cpu"
    models = list(SUBJECTS) if args.model == "all" else [args.model]
    print(f"| on {about['device']} | jaxcifar | PyTorch | ratio | of the matrix product |")
    print("|---|---|---|---|---|", flush=True)
    rows = {"matrix product, FLOP/s": ceiling}

    def add(title: str, row: dict[str, Any]) -> None:
        rows[title] = row
        print(format_row(title, row), flush=True)

    for model in models:
        benchmark(model, args, names, ceiling, on_gpu, add)
        if not SUBJECTS[model].forward_flops:
            with tempfile.TemporaryDirectory() as cache:
                for start in ("first", "second"):
                    seconds = first_step_seconds(SUBJECTS[model].part, cache)
                    row = {"jaxcifar": {"median": seconds}}
                    add(f"{model}: {start} start, command to first step, s", row)
    if args.output:
        found = {
            "command": " ".join(["python", "scripts/benchmark.py", *sys.argv[1:]]),
            "date": datetime.date.today().isoformat(),
            "machine": {"cores": os.cpu_count(), "processor": processor()},
            "versions": about,
            "figures": rows,
        }
        pathlib.Path(args.output).write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
