"""Says what is installed, what is missing and for what, and whether training is possible here.

python -m jaxcifar.doctor

It shows the versions, the devices, memory and disk, the caches, which data sets are on this machine
and whether W&B has an API key. The last line is the verdict; the exit code is 0 if training is
possible and 2 if it is not.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

# Nothing here may need an installed package at import: it may be the one that is broken.
from jaxcifar import __version__, environment, optional, output
from jaxcifar.spec import ConfigError, first_line

START_SECONDS = 180.0  # for JAX to start, compile and compute something


def main() -> int:
    """Prints what there is; returns the exit code."""
    devices: dict[str, Any] = {}
    problems = []
    checks: tuple[tuple[str, Callable[[], Iterator[str]], bool], ...] = (
        ("jaxcifar", _jaxcifar, False),
        ("packages", _packages, False),
        ("optional", _optional_packages, False),
        ("devices", lambda: _devices(devices), True),
        ("GPUs", lambda: _gpus(devices), False),
        ("memory", _memory, False),
        ("disk", _disk, False),
        ("caches", _caches, False),
        ("CIFAR-10", lambda: _data_set("cifar10"), False),
        ("CIFAR-100", lambda: _data_set("cifar100"), False),
        ("W&B", _wandb, True),
    )
    for label, check, is_required in checks:
        try:
            for line in check():
                print(f"{label:<11}{line}")
                label = ""
        except Exception as error:  # whatever is broken, the other checks follow
            kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
            print(f"{label:<11}{kind}{first_line(error)}")
            if is_required:
                problems.append(f"{kind}{first_line(error)}")
    if problems:
        print(f"not ready: {'; '.join(problems)}")
        return 2
    print(f"ready: it trains on {devices['description']}")
    return 0


def print_devices() -> None:
    """Prints what JAX computes on as JSON, or why it does not: in a process of its own, since
    broken drivers and flags end the process.
    """
    try:
        import jax

        from jaxcifar import config, parallel, train  # noqa: F401 (everything that a run imports)

        mesh = parallel.setup(config.default())
        image, kernel = jax.numpy.ones((1, 1, 4, 4)), jax.numpy.ones((1, 1, 3, 3))
        jax.lax.conv(image, kernel, (1, 1), "SAME").block_until_ready()
        device = mesh.devices.flat[0]
        found = {
            "description": parallel.describe(mesh),
            "platform": device.platform,
            "bytes": (device.memory_stats() or {}).get("bytes_limit"),
        }
    except ConfigError as error:
        found = {"error": str(error)}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {first_line(error)}"}
    print(json.dumps(found))


def _jaxcifar() -> Iterator[str]:
    yield f"{__version__} in {pathlib.Path(__file__).parent}"
    yield f"Python {platform.python_version()} in {sys.prefix}"


def _packages() -> Iterator[str]:
    yield ", ".join(f"{name} {_version(name) or 'missing'}" for name in environment.PACKAGES)
    if _version("jaxcifar") is None:
        yield "jaxcifar itself is not installed: pip install -e . in its checkout"
        return
    for requirement in importlib.metadata.requires("jaxcifar") or ():
        name = re.match(r"[\w.-]+", requirement)[0]
        if "extra ==" not in requirement and _version(name) is None:
            yield f"{name} is missing: pip install '{requirement}'"


def _optional_packages() -> Iterator[str]:
    for name, package in optional.PACKAGES.items():
        version = _version(name)
        missing = f"is not installed; for {package.purpose}: {package.install}"
        yield f"{name} {version or missing}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(found: dict[str, Any]) -> Iterator[str]:
    """Describes JAX's devices, and adds what `print_devices` says to `found`."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from jaxcifar import doctor; doctor.print_devices()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # a run may need it
            capture_output=True,
            text=True,
            errors="replace",
            timeout=START_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"JAX does not start within {START_SECONDS:.0f} seconds") from None
    try:
        found |= json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise ConfigError(f"JAX ends its process ({done.returncode}): {lines[-1]}") from None
    if "error" in found:
        raise ConfigError(found["error"])
    memory = f", {_size(found['bytes'])} each for JAX" if found["bytes"] else ""
    yield f"{found['description']}{memory}"


def _gpus(devices: dict[str, Any]) -> Iterator[str]:
    """Describes the GPUs that NVIDIA's driver sees, and says how JAX gets them if it has none."""
    if not shutil.which("nvidia-smi"):
        yield "no NVIDIA driver: there is no nvidia-smi"
        return
    query = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    yield from (gpus := _nvidia_smi(*query).splitlines())
    if not gpus or devices.get("platform") != "cpu":
        return
    variables = ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES")
    settings = [f"{name}={os.environ[name]}" for name in variables if name in os.environ]
    plugins = [name for name in ("jax-cuda12-plugin", "jax-cuda13-plugin") if _version(name)]
    cuda = re.search(r"CUDA Version: *(\d+)", _nvidia_smi())
    if settings:
        remedy = f"because of {' '.join(settings)}"
    elif plugins:
        remedy = f"although {plugins[0]} {_version(plugins[0])} is installed; jaxlib's version?"
    else:
        extra = "cuda13" if cuda and int(cuda[1]) >= 13 else "cuda12"
        remedy = f"without its plugin: pip install 'jaxcifar[{extra}]'"
    yield f"JAX sees only the CPU, {remedy}"


def _nvidia_smi(*arguments: str) -> str:
    """Returns what nvidia-smi prints.

    Raises:
        ConfigError: it fails, as with a driver that does not match the kernel's.
    """
    done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise ConfigError(f"nvidia-smi fails: {' '.join((done.stdout + done.stderr).split())}")
    return done.stdout


def _memory() -> Iterator[str]:
    from jaxcifar import memory

    yield f"{_size(memory.available_bytes())} available, {os.cpu_count()} processor cores"


def _disk() -> Iterator[str]:
    from jaxcifar import cache

    for path in (pathlib.Path.cwd(), cache.directory().absolute()):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        locked = "" if os.access(existing, os.W_OK) else ", not writable"
        yield f"{_size(shutil.disk_usage(existing).free)} free in {path}{locked}"


def _caches() -> Iterator[str]:
    from huggingface_hub import constants

    from jaxcifar import cache
    from jaxcifar.data import cifar

    own = cache.directory()
    programs = pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or own / "xla")
    for what, path in (
        ("jaxcifar's", own),
        ("compiled programs", programs),
        ("tfds's data", cifar.tfds_directory()),
        ("Hugging Face's", pathlib.Path(constants.HF_HUB_CACHE)),
    ):
        if path.is_dir():
            yield f"{what}: {_size(_bytes_in(path))} in {path}"
        else:
            yield f"{what}: {'not a directory' if path.exists() else 'none'} in {path}"


def _data_set(name: str) -> Iterator[str]:
    from jaxcifar.data import offline

    source = offline.find(name)
    yield f"on this machine, {source}" if source else "not on this machine: a run downloads it"


def _wandb() -> Iterator[str]:
    from jaxcifar import wandb_log

    mode = wandb_log.choose_mode("auto")
    key = "set" if os.environ.get("WANDB_API_KEY") else "not set"
    login = "; to track online: wandb login" if mode == "offline" else ""
    yield f"mode {mode}; $WANDB_API_KEY is {key}{login}"


def _bytes_in(directory: pathlib.Path) -> int:
    """Returns the size of the files in a directory, links not followed."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # deleted since
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e7 else f"{num_bytes / 1e6:.2f} MB"


def launch() -> None:
    """Runs the command and exits."""
    output.protect()
    arguments = sys.argv[1:]
    if arguments and arguments[0] not in ("--help", "-h"):
        print(f"error: {arguments[0]!r} is not a flag; there are none", file=sys.stderr)
        sys.exit(2)
    if arguments:
        print(__doc__.strip())
        sys.exit(0)
    sys.exit(main())


if __name__ == "__main__":
    launch()
