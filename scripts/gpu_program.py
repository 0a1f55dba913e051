"""Shows what XLA makes of a config's training step for a GPU, on a machine that has none.

python scripts/gpu_program.py [--config=configs/part3_bf16.py] [--gpus=N] [--batch_size=B]
                              [--hlo=FILE.txt]

JAX can compile for a GPU that is only described. So the kernels of a step and the bytes that they
move can be counted anywhere; only times need the GPU. docs/gpu.md says what it takes to run this
and how to read the figures, which are printed as JSON.
"""

import argparse
import collections
import itertools
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"  # the plugin is to compile, not to look for a GPU
# Autotuning runs candidates on the GPU.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"

import jax
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import models, optimizers, parallel
from jaxcifar import step as step_lib
from jaxcifar.models import functional
from jaxcifar.program import choose_steps_per_call

NUM_IMAGES, NUM_CLASSES = 40_000, 100

# An NVIDIA H200, as its datasheet and CUDA's device properties have it (GpuTargetConfigProto)
H200 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  device_memory_size: 150000000000 memory_bandwidth: 4800000000000 l2_cache_size: 62914560
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  driver_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.13.0"
}
dnn_version_info { major: 9 minor: 13 }
runtime_version { major: 13 }
"""


def compile_train_call(config: ConfigDict, num_gpus: int = 1) -> str:
    """Returns the optimized HLO of a device call, for described GPUs."""
    found = topologies.get_topology_desc(
        platform="cuda", target_config=H200, topology=f"1x1x{num_gpus}"
    )
    mesh = Mesh(np.array(found.devices), ("data",))
    sharding = parallel.replicated(mesh)
    optimizer = optimizers.create(config)

    def create(key: jax.Array) -> nnx.Module:
        return models.from_config(config, num_classes=NUM_CLASSES, rngs=nnx.Rngs(key))

    def init(key: jax.Array) -> step_lib.TrainState:
        _, params, stats = functional.split(create(key))
        return step_lib.init_state(params, stats, optimizer, config)

    def abstract(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    key = jax.eval_shape(lambda: jax.random.key(0))
    graphdefs, _, _ = functional.split(nnx.eval_shape(lambda: create(jax.random.key(0))))
    state = jax.eval_shape(init, key)
    arrays = {
        "images": np.zeros((NUM_IMAGES, 32, 32, 3), np.uint8),
        "labels": np.zeros(NUM_IMAGES, np.int32),
        "order": np.zeros(NUM_IMAGES, np.int32),
        "hyperparameters": {
            name: np.zeros(-(-NUM_IMAGES // config.batch_size), np.float32)
            for name in state.opt_state.hyperparams
        },
    }
    train_call = jax.jit(
        step_lib.make_train_call(graphdefs, optimizer, config, NUM_CLASSES, mesh),
        static_argnames=("steps", "batch_size"),
        donate_argnames="state",
        out_shardings=sharding,
    )
    inputs = (abstract(state), *map(abstract, arrays.values()), abstract(key), 0)
    steps = choose_steps_per_call(NUM_IMAGES // config.batch_size, "gpu")
    # What the layers do for a CPU only must not be traced.
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        traced = train_call.trace(*inputs, steps=steps, batch_size=config.batch_size)
    options = parallel.GPU_COMPILER_OPTIONS
    return traced.lower(lowering_platforms=("cuda",)).compile(compiler_options=options).as_text()


class Instruction(NamedTuple):
    """A line of HLO."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    text: str


_LINE = re.compile(
    r"\s+(?:ROOT )?%?([\w.\-]+) = "  # name
    r"(\([^()]*(?:\([^()]*\)[^()]*)*\)|\S+) "  # shape, or a tuple of shapes
    r"([\w\-]+)\((.*)"  # opcode, operands and the rest
)
_NOT_KERNELS = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "async-start"}
_NOT_KERNELS |= {"async-done", "fusion-done", "all-reduce-done"}  # of one started before
_NOT_KERNELS |= {"partition-id"}
_BITS = {"pred": 8}


def loop_body(hlo: str) -> list[Instruction]:
    """Returns the instructions of the loop over steps: the loop's body with the most of them."""
    bodies = set(re.findall(r"body=%?([\w.\-]+)", hlo))
    return max(
        (instructions for name, instructions in _computations(hlo) if name in bodies), key=len
    )


def _computations(hlo: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Yields every computation's name and instructions."""
    name, instructions = "", []
    for line in hlo.splitlines():
        if line.startswith(("%", "ENTRY")):
            name, instructions = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0], []
        elif line.startswith("}"):
            yield name, instructions
        elif found := _LINE.match(line):
            *head, rest = found.groups()
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            instructions.append(Instruction(*head, tuple(operands), line))


def count(body: list[Instruction]) -> dict[str, Any]:
    """Returns the figures of a step: kernels, by kind, and the bytes that they read and write; the
    activations that are transposed or stored in float32; of each all-reduce of gradients its size
    and how many convolutions may run beside it.
    """
    shapes = {instruction.name: instruction.shape for instruction in body}
    kinds, num_bytes = collections.Counter(), 0
    for instruction in body:
        if instruction.opcode in _NOT_KERNELS:
            continue
        target = re.search(r'custom_call_target="([^"]+)"|kind=(\w+)', instruction.text)
        kinds[target[1] or target[2] if target else instruction.opcode] += 1
        operands = [shapes.get(name, "") for name in instruction.operands]
        if instruction.name.startswith("wrapped_slice"):  # does not read all of its operand
            operands = [instruction.shape]
        parts = (instruction.shape, *operands)
        num_bytes += sum(map(_num_bytes, parts))
    activation = re.compile(r"f32\[\d+,(32|16|8|4),\1,\d\d+\]")  # of a ResNet for 32 pixels
    return {
        "kernels": kinds.total(),
        "gigabytes": num_bytes / 1e9,
        "kinds": dict(kinds.most_common()),
        "transposed": [
            i.name for i in body if i.opcode in ("transpose", "copy") and "," in i.shape
        ],
        "float32 activations": [
            i.name for i in body if i.opcode == "fusion" and activation.search(i.shape)
        ],
        "gradient all-reduces": list(_gradient_all_reduces(body)),
    }


def _gradient_all_reduces(body: list[Instruction]) -> Iterator[dict[str, float]]:
    """Yields what `count` shows of each. Those of less than 0.1 MB are BatchNorm's statistics."""
    for index, instruction in enumerate(body):
        if not instruction.opcode.startswith("all-reduce"):
            continue
        is_async = instruction.opcode == "all-reduce-start"
        megabytes = _num_bytes(instruction.shape) / (2e6 if is_async else 1e6)
        if instruction.opcode == "all-reduce-done" or megabytes < 0.1:
            continue
        name, convolutions = instruction.name, 0
        if is_async:
            beside = itertools.takewhile(lambda i, name=name: name not in i.operands, body[index:])
            convolutions = sum("__cudnn$conv" in i.text for i in beside)
        yield {"megabytes": megabytes, "convolutions beside": convolutions}


def _num_bytes(shape: str) -> int:
    """Returns the size of an array or of a tuple of them, such as (f32[64]{0}, u8[0]{0})."""
    total = 0
    for dtype, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
        total += bits // 8 * int(np.prod([int(d) for d in dimensions.split(",") if d], dtype=int))
    return total


def main() -> int:
    """Runs the command and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/part3_bf16.py")
    parser.add_argument("--gpus", type=int, default=1, help="number of GPUs")
    parser.add_argument("--batch_size", type=int, help="of all GPUs (default: the config's)")
    parser.add_argument("--hlo", default="", help="a file for the optimized program's text")
    args = parser.parse_args()
    config = config_lib.load(args.config)
    config.model.pretrained = ""
    config.batch_size = args.batch_size or config.batch_size
    hlo = compile_train_call(config, args.gpus)
    if args.hlo:
        pathlib.Path(args.hlo).write_text(hlo)
    print(json.dumps(count(loop_body(hlo)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
