"""How fast jaxcifar is beside PyTorch, on this machine, in one run.

python scripts/benchmark.py [--model=simple_cnn|resnet18|part1|part2|part3|all]
                            [--peer=pytorch|none] [--data=FILE.npz] [--output=FILE.json]

simple_cnn and resnet18 measure training steps (batches of 128 and of 64, the data in memory on both
sides, no augmentation) and evaluation. part1, part2 and part3 measure whole epochs, data and
augmentation included (the peer's in DataLoader workers), the augmentation alone, and the time from
the command to the first step. Each side runs in a process of its own; rounds alternate, and a
figure is the median of its rounds, with the lowest and the highest. Without --data the images are
noise, which costs the same. The peer's recipes are those of scripts/pytorch_baseline.py.
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
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ("simple_cnn", "resnet18", "part1", "part2", "part3")
RECIPES = {"simple_cnn": 1, "resnet18": 2, "part1": 1, "part2": 2, "part3": 3}
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


def first_step_seconds(part: int, cache: str, data_flags: list[str]) -> float:
    """Returns the seconds from the training command to the end of its first step."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "jaxcifar.main", f"--workdir={workdir}/run"]
        command += [f"--config={ROOT}/configs/part{part}.py", "--config.model.pretrained="]
        command += ["--config.wandb.mode=disabled", *data_flags]
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


def measure(
    sides: list[Side], rounds: int, work: float, do: str, **arguments: Any
) -> dict[str, Any]:
    """Returns each side's median, lowest and highest work per second over alternating rounds, and
    the ratio of the medians.
    """
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            seconds[side.name].append(side.ask(do, **arguments))
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


def benchmark(
    models: list[str], sides: list[Side], rounds: int, on_gpu: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Returns the figures of the models, saying each as it comes."""
    rows: dict[str, Any] = {}

    def add(title: str, row: dict[str, Any]) -> None:
        rows[title] = row
        say(format_row(title, row))

    ours = sides[0]
    ceiling = ours.ask("ceiling") if models else 0.0
    for model in models:
        part = RECIPES[model]
        if model in ("simple_cnn", "resnet18"):
            for batch_size in (128, 64):
                steps = 100 if on_gpu else (40 if part == 1 else 4)
                images = steps * batch_size
                for side in sides:
                    side.ask(
                        "prepare",
                        part=part,
                        batch_size=batch_size,
                        train_images=images,
                        augment=False,
                    )
                row = measure(sides, rounds, images, "epoch")
                flops = 3 * FORWARD_FLOPS[model] * row["jaxcifar"]["median"]
                row["utilisation"] = flops / ceiling
                add(f"{model}: training step, batch {batch_size}, images/s", row)
            count = 10_000 if on_gpu or part == 1 else 1000
            for side in sides:
                side.ask("evaluate", count=count)
            add(
                f"{model}: evaluation, images/s",
                measure(sides, rounds, count, "evaluate", count=count),
            )
            continue
        batch_size = 64 if part == 2 else 128
        images = 40_000 if on_gpu else (12_800 if part == 1 else 640)
        for side in sides:
            side.ask("prepare", part=part, batch_size=batch_size, train_images=images, augment=True)
        add(f"{model}: end to end, images/s", measure(sides, rounds, images, "epoch"))
        if part == 3:
            count = 40_000 if on_gpu else 2560
            add(
                f"{model}: augmentation alone, images/s",
                measure(sides, rounds, count, "augment", count=count),
            )
    rows["matrix product, FLOP/s"] = ceiling
    rows["peak memory, MiB"] = {side.name: side.peak_mib for side in sides}
    return rows


# Floating-point operations of a forward pass, by image: two for each multiply-add.
FORWARD_FLOPS = {"simple_cnn": 2 * 11.4e6, "resnet18": 2 * 0.556e9}


def format_row(title: str, row: dict[str, Any]) -> str:
    """Returns a figure as a line of the Markdown table."""
    cells = [
        f"{r['median']:,.0f} ({r['low']:,.0f}-{r['high']:,.0f})" if (r := row.get(side)) else ""
        for side in ("jaxcifar", "pytorch")
    ]
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
    parser.add_argument("--model", choices=(*MODELS, "all"), default="all")
    parser.add_argument("--peer", choices=("pytorch", "none"), default="pytorch")
    parser.add_argument("--data", default="", help="an .npz: {train,test}_{images,labels}")
    parser.add_argument("--output", default="", help="a JSON file for the figures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=("jaxcifar", "pytorch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data and not pathlib.Path(args.data).is_file():
        print(f"error: --data={args.data!r} is not a file", file=sys.stderr)
        return 2
    if args.side:
        serve(args.side, args.data)
        return 0
    names = ["jaxcifar"] + ["pytorch"] * (args.peer == "pytorch")
    sides = [Side(name, args.data) for name in names]
    about = {key: value for side in sides for key, value in side.ask("about").items()}
    on_gpu = about["device"] != "cpu"
    models = list(MODELS) if args.model == "all" else [args.model]
    print(f"| on {about['device']} | jaxcifar | PyTorch | ratio | of the matrix product |")
    print("|---|---|---|---|---|")
    rows = benchmark(models, sides, args.rounds, on_gpu, lambda line: print(line, flush=True))
    peaks = " | ".join(f"{peak:,}" for peak in rows["peak memory, MiB"].values())
    print(f"| peak memory of the process, MiB | {peaks} |", flush=True)
    for side in sides:
        side.close()
    for model in models:
        if model.startswith("part"):
            with tempfile.TemporaryDirectory() as cache:
                flags = ["--config.data.name=synthetic100"]
                starts = [first_step_seconds(RECIPES[model], cache, flags) for _ in range(2)]
            rows[f"{model}: command to first step, s"] = dict(
                zip(("first start", "second start"), starts, strict=True)
            )
            print(f"| {model}: command to first step, s | {starts[0]:.1f}, then {starts[1]:.1f} |")
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
