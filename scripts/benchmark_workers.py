"""The two sides of scripts/benchmark.py, jaxcifar and PyTorch, each in its own processes.

A worker process holds the data and answers requests, a JSON line each: "prepare" a recipe, then run
an "epoch", "evaluate" or "augment"; "describe" the versions; jaxcifar's also measures
"matmul_flops" and how long it takes to "corrupt" images. `Worker` starts one and asks it.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
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


class JaxWorker:
    """Measures jaxcifar: its `Program`, driven as training drives it."""

    def __init__(self, arrays: list[np.ndarray]):
        """Keeps the arrays and starts the devices; `prepare` chooses what is measured."""
        from jaxcifar import config, parallel

        self.arrays = arrays
        self.mesh = parallel.setup(config.default())

    def prepare(
        self,
        part: int,
        batch_size: int,
        train_images: int,
        test_images: int,
        augment: bool,
        dtype: str | None = None,
    ) -> dict[str, int]:
        """Builds a recipe's program and runs an epoch; returns the numbers of images. `dtype` is
        bfloat16 on a GPU by default, else float32.
        """
        import jax

        from jaxcifar import config
        from jaxcifar.data import Dataset, Splits
        from jaxcifar.program import Program
        from jaxcifar.run_schedule import RunSchedule

        c = config.load(str(ROOT / "configs" / f"part{part}.py"))
        c.batch_size = batch_size
        c.num_epochs = 1
        c.model.pretrained = ""
        c.dtype = dtype or ("bfloat16" if jax.default_backend() == "gpu" else "float32")
        if not augment:
            c.augment = ""
        names = tuple(map(str, range(NUM_CLASSES)))
        train_x, train_y, test_x, test_y = self.arrays
        train = Dataset(train_x[:train_images], train_y[:train_images].astype(np.int32), names)
        test = Dataset(test_x[:test_images], test_y[:test_images].astype(np.int32), names)
        self.config, self.train_images = c, train.images
        self.program = Program(c, self.mesh, Splits(train, test, test))
        self.values = RunSchedule(c, self.program.steps_per_epoch).epoch_values(0)
        self.state = self.program.init()
        self.epoch()
        return {"train": len(train), "test": len(test)}

    def epoch(self) -> float:
        """Times one epoch, in seconds, reading its metrics as training does."""
        from jaxcifar import metrics

        started, last_sums, totals = time.perf_counter(), None, {}
        for call in self.program.train_epoch(self.state, 0, self.values):
            if last_sums:
                totals = metrics.add(totals, last_sums)
            last_sums, self.state = call.sums, call.state
        metrics.add(totals, last_sums)
        return time.perf_counter() - started

    def evaluate(self) -> float:
        """Times scoring the test images, in seconds."""
        started = time.perf_counter()
        self.program.evaluate(self.state.model, "test")
        return time.perf_counter() - started

    def augment(self, count: int) -> float:
        """Times augmenting `count` images in batches, in seconds."""
        import jax
        import jax.numpy as jnp

        from jaxcifar import augment, parallel

        transform = augment.parse(self.config.augment)
        size = self.config.batch_size * (1 if jax.default_backend() == "cpu" else 64)
        device_images = jax.device_put(self.train_images, parallel.replicated(self.mesh))

        @jax.jit
        def run(images, key):
            images, keys = parallel.split_batch(
                self.mesh, images[:size] / jnp.float32(255), jax.random.split(key, size)
            )
            return jax.vmap(transform)(keys, images)

        jax.block_until_ready(run(device_images, jax.random.key(0)))
        num_calls = -(-count // size)
        started = time.perf_counter()
        for call in range(num_calls):
            output = run(device_images, jax.random.key(call))
        jax.block_until_ready(output)
        return (time.perf_counter() - started) * count / (num_calls * size)

    def corruptions(self) -> list[str]:
        """Returns the names of the corruptions that can be generated."""
        from jaxcifar import corruptions

        return corruptions.available()

    def corrupt(self, name: str, count: int) -> float:
        """Times corrupting `count` test images at all five severities, in seconds."""
        from jaxcifar import corruptions

        images = self.arrays[2][:count]
        started = time.perf_counter()
        for _ in corruptions.generate(images, 0, [name]):
            pass
        return time.perf_counter() - started

    def matmul_flops(self) -> float:
        """Returns the FLOP/s of a large matrix product: bfloat16 on a GPU, float32 on a CPU."""
        import jax
        import jax.numpy as jnp

        on_gpu = jax.default_backend() == "gpu"
        size, dtype = (8192, jnp.bfloat16) if on_gpu else (3072, jnp.float32)
        a = jax.random.normal(jax.random.key(0), (size, size), dtype)  # ones would be faster
        product = jax.jit(lambda a: a @ a)
        jax.block_until_ready(product(a))
        best = 0.0
        for _ in range(5):
            started = time.perf_counter()
            jax.block_until_ready([product(a) for _ in range(10 if on_gpu else 1)])
            rate = 2 * size**3 * (10 if on_gpu else 1) / (time.perf_counter() - started)
            best = max(best, rate)
        return best

    def describe(self) -> dict[str, Any]:
        """Returns the version and the device."""
        import jax

        return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}


class TorchWorker:
    """Measures PyTorch: the recipes of scripts/pytorch_baseline.py."""

    def __init__(self, arrays: list[np.ndarray]):
        """Keeps the arrays; `prepare` chooses what is measured."""
        self.arrays = arrays

    def prepare(
        self,
        part: int,
        batch_size: int,
        train_images: int,
        test_images: int,
        augment: bool,
        compile_mode: str | None = None,
    ) -> dict[str, int]:
        """Builds a recipe's model and data and runs an epoch; returns the numbers of images."""
        import pytorch_baseline as baseline
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        recipe = baseline.make_recipe(part, NUM_CLASSES, self.device, compile_mode)
        recipe = recipe._replace(batch_size=batch_size)
        images, labels = self.arrays[0][:train_images], self.arrays[1][:train_images]
        if augment:
            self.batches = torch.utils.data.DataLoader(
                baseline.Images(images, labels, recipe.transform),
                batch_size,
                shuffle=True,
                num_workers=os.cpu_count(),
                persistent_workers=True,
                pin_memory=self.device.type == "cuda",
            )
        else:  # in memory, normalized, on the device
            self.batches = self._in_memory(images, labels, batch_size)
        self.test = self._in_memory(*(array[:test_images] for array in self.arrays[2:]), 1000)
        self.recipe, self.step = recipe, baseline.make_train_step(recipe, self.device)
        self.epoch()
        return {"train": len(labels), "test": len(self.arrays[3][:test_images])}

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
        """Times one epoch, in seconds."""
        import pytorch_baseline as baseline

        started = time.perf_counter()
        for images, labels in self.batches:
            images = baseline.to_device(images, self.device)
            loss, _ = self.step(images, labels.to(self.device, non_blocking=True))
        loss.item()
        return time.perf_counter() - started

    def evaluate(self) -> float:
        """Times scoring the test images, in seconds."""
        import pytorch_baseline as baseline

        started = time.perf_counter()
        baseline.evaluate(self.recipe, self.test, self.device)
        return time.perf_counter() - started

    def augment(self, count: int) -> float:
        """Times augmenting `count` images in the DataLoader's workers, in seconds."""
        started, num_images = time.perf_counter(), 0
        while num_images < count:
            for _, labels in self.batches:
                num_images += len(labels)
        return (time.perf_counter() - started) * count / num_images

    def describe(self) -> dict[str, Any]:
        """Returns the version."""
        import torch

        return {"torch": torch.__version__}


class Worker:
    """A worker process, controlled over pipes."""

    def __init__(self, name: str, data: str):
        """Starts the process of "jaxcifar" or "pytorch", with the data of `load_arrays`."""
        self.name, self.peak_mib = name, 0
        self._process = subprocess.Popen(
            [sys.executable, __file__, name, data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Returns the reply to a request."""
        self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: the {self.name} process ended; its own message is above")
        reply = json.loads(line)
        self.peak_mib = reply["peak_mib"]
        return reply["reply"]

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(name: str, data: str) -> None:
    """Answers requests until standard input ends."""
    worker = {"jaxcifar": JaxWorker, "pytorch": TorchWorker}[name](load_arrays(data))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(worker, request.pop("do"))(**request)
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"reply": reply, "peak_mib": round(usage)}), file=replies, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
