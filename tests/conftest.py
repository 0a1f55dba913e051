"""Shared by all tests: devices, isolated caches, small configs and image folders."""

import functools
import os
import subprocess
import sys

# Compiling takes most of the tests' time, and a quarter less at LLVM's level 1. (.ci/run sets flags
# of its own for the numerics.)
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from jaxcifar import config as config_lib
from jaxcifar import main as main_lib
from jaxcifar.checkpoint import Checkpoints
from jaxcifar.progress import Progress
from jaxcifar.report import finish
from jaxcifar.step import TrainState

jax.config.update("jax_num_cpu_devices", 8)
jax.devices()  # start JAX now: the first tested run would choose another number
if os.environ["XLA_FLAGS"] == "--xla_backend_optimization_level=1":
    # JAX has read them by now; a command that a test starts would start JAX twice, to check them.
    del os.environ["XLA_FLAGS"]
jax.config.update("jax_default_matmul_precision", "highest")  # no TF32 in comparisons on a GPU


@pytest.fixture
def reports():
    """Has runs end with a report, which takes seconds; without it they do not in tests."""


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path_factory, monkeypatch, request):
    """No test reads or writes the user's caches, or tracks to W&B."""
    if "reports" not in request.fixturenames:
        monkeypatch.setattr(finish, "write_for_run", lambda *_: "no report: not in this test")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    monkeypatch.setenv("JAXCIFAR_CACHE", str(shared / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture
def small_config():
    """A run of seconds: 3 epochs of a narrow SimpleCNN on 480 synthetic images."""
    config = config_lib.default()
    config.data.name = "synthetic100"
    config.data.synthetic_size = 600
    config.num_epochs = 3
    config.batch_size = 48  # 480 = 10 × 48: one size of batches to compile
    config.model.name = "simple_cnn"
    config.model.width = 4
    config.eval.batch_size = 60  # 120 = 2 × 60
    config.parallel.cpu_devices = 2  # of conftest's 8: sharded, and faster than on all of them
    return config


@pytest.fixture
def image_folder(tmp_path):
    """An image folder of two classes, with images of several sizes, modes and formats."""
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for label, name in enumerate(("bright", "dark")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                size = [(32, 32, 3), (40, 50, 3), (64, 32, 4), (20, 20)][i % 4]
                low = 128 * (1 - label)
                pixels = rng.integers(low, low + 128, size, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def frost_photographs(tmp_path_factory):
    """Installs photographs of frost, of noise and one color each; returns them by file name."""
    from jaxcifar.corruptions import photographs  # lazy: no other tests need it

    folder = tmp_path_factory.mktemp("packages") / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    rng = np.random.default_rng(0)
    photos = {}
    for number, extension in enumerate(("png", "png", "png", "jpg", "jpg", "jpg"), 1):
        name, size = f"frost{number}.{extension}", (175 + 30 * number, 195 + 10 * number, 3)
        photos[name] = rng.integers(0, 256, size, np.uint8)
        Image.fromarray(photos[name]).save(folder / name, "PNG")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder.parent.parent)
        photographs.load.cache_clear()
        yield photos
    photographs.load.cache_clear()


@pytest.fixture
def run_main():
    """Runs the training command in its own process."""

    def run(*flags, timeout=120):
        return subprocess.run(
            [sys.executable, "-m", "jaxcifar.main", *map(str, flags)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ,
        )

    return run


@pytest.fixture
def call_command(monkeypatch, capsys):
    """Runs a command in this process: fn(launch, *flags) -> exit code, stdout, stderr."""

    def call(launch, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            with pytest.raises(SystemExit) as caught:
                launch()
            flags.FLAGS.mark_as_parsed()
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def call_main(call_command):
    """Runs the training command in this process: fn(*flags) -> exit code, stdout, stderr."""
    return functools.partial(call_command, main_lib.launch)


@pytest.fixture
def add_checkpoint():
    """Writes an epoch's checkpoint of a run: fn(run, epoch, state=None) -> its path."""

    def add(run, epoch, state=None):
        records = [{"epoch": e, "step": 10 * e, "val_acc": 50.0 + e} for e in range(1, epoch + 1)]
        progress = Progress(run.config.to_dict(), ["a", "b"], "digest", records)
        checkpoints = Checkpoints(run.directory / "checkpoints", 2, run.lock.check)
        state = state or TrainState(jnp.int32(10 * epoch), {"w": jnp.ones(3) * epoch}, {}, ())
        checkpoints.keep_best(10 * epoch, state.model)
        checkpoints.save(10 * epoch, state, progress)
        checkpoints.wait()
        return run.directory / "checkpoints" / "last" / str(10 * epoch)

    return add


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """A Hugging Face hub that the hub's client talks to, with a token and empty caches."""
    import fake_hub  # lazy: few tests need it
    from huggingface_hub import constants

    with fake_hub.FakeHub().serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another server's protocol
        monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
        monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
        yield server
