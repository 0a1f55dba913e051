import importlib.metadata
import os
import subprocess
import sys

import pytest

from jaxcifar import doctor
from jaxcifar.data import offline
from jaxcifar.spec import ConfigError


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command in this process, in an empty home: fn() -> exit code, its lines."""
    for name in ("HOME", "TFDS_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(offline, "find", lambda name: "in a cache" if name == "cifar10" else "")

    def run():
        code = doctor.main()
        return code, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def devices(monkeypatch):
    """One CPU, without starting JAX."""

    def find(found):
        found |= {"description": "1 × cpu", "platform": "cpu", "bytes": None}
        yield found["description"]

    monkeypatch.setattr(doctor, "_devices", find)


def line_of(lines, label):
    (line,) = [line for line in lines if line.startswith(f"{label} ")]
    return line


def test_a_working_installation_is_ready(run):
    code, lines = run()
    assert code == 0
    assert lines[-1] == f"ready: it trains on {line_of(lines, 'devices').split(maxsplit=1)[1]}"
    version = importlib.metadata.version("jax")
    assert f"jax {version}, " in line_of(lines, "packages")
    assert " available, " in line_of(lines, "memory")
    assert line_of(lines, "CIFAR-10").endswith("on this machine, in a cache")
    assert "a run downloads it" in line_of(lines, "CIFAR-100")
    assert line_of(lines, "W&B").endswith("mode disabled; $WANDB_API_KEY is not set")


def test_what_is_broken_is_told_and_the_other_checks_follow(run, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    monkeypatch.setattr(offline, "find", lambda name: 1 / 0)
    code, lines = run()
    assert code == 2
    assert lines[-1].startswith("not ready: JAX cannot start (")
    assert "'nonsense'" in line_of(lines, "devices")
    assert lines[-1].endswith(line_of(lines, "W&B").split(maxsplit=1)[1])
    assert "WANDB_MODE='sometimes' is not valid" in lines[-1]
    assert line_of(lines, "CIFAR-10").endswith("ZeroDivisionError: division by zero")


def test_a_cache_that_is_a_file(run, devices, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "file"))
    _, lines = run()
    for label in ("disk", "caches"):
        assert line_of(lines, label).endswith("file' is not a directory")


def test_the_api_key_is_not_shown(run, devices, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    _, lines = run()
    assert line_of(lines, "W&B").endswith("$WANDB_API_KEY is set")
    assert "secret" not in "".join(lines)


def test_missing_packages_are_named_with_what_installs_them(run, devices, monkeypatch):
    version = importlib.metadata.version

    def without(name):
        if name in ("flax", "optuna", "torch"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    code, lines = run()
    assert code == 0
    assert "flax missing, optax" in line_of(lines, "packages")
    assert any("flax is missing: pip install 'flax>=" in line for line in lines)
    assert any("optuna is not installed; for sweeps: pip install" in line for line in lines)
    assert "torch is not installed; for porting .pth files" in line_of(lines, "optional")
    assert not any("jax is missing" in line for line in lines)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo Unknown flag >&2; kill -ABRT $$", r"ends its process \(-6\): Unknown flag"),
        ("exit 3", r"ends its process \(3\): no message"),
        ("sleep 9", "does not start within 0 seconds"),
        ("""echo '{"error": "No module named x"}'""", "No module named x"),
    ],
)
def test_a_process_that_ends_or_hangs(monkeypatch, tmp_path, command, message):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{command}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(doctor, "START_SECONDS", 0.4 if "sleep" in command else 9)
    with pytest.raises(ConfigError, match=message):
        list(doctor._devices({}))


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """Installs a command of this name, which runs a line of shell."""
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(line):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return install


def test_a_gpu_that_jax_does_not_see(nvidia_smi, monkeypatch):
    gpu, cpu = "NVIDIA L4, 23034 MiB, 580.82", {"platform": "cpu"}
    assert list(doctor._gpus(cpu)) == ["no NVIDIA driver: there is no nvidia-smi"]
    for version, extra in ((13, "cuda13"), (12, "cuda12")):
        nvidia_smi(f'[ "$1" ] && echo "{gpu}" || echo "| CUDA Version: {version}.0 |"')
        assert list(doctor._gpus({"platform": "gpu"})) == [gpu]
        monkeypatch.setattr(doctor, "_version", lambda name: None)
        hint = f"JAX sees only the CPU, without its plugin: pip install 'jaxcifar[{extra}]'"
        assert list(doctor._gpus(cpu)) == [gpu, hint]
        monkeypatch.setattr(doctor, "_version", lambda name: "0.9")
        assert "although jax-cuda12-plugin 0.9 is installed" in list(doctor._gpus(cpu))[1]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert list(doctor._gpus(cpu))[1] == "JAX sees only the CPU, because of JAX_PLATFORMS=cpu"
    nvidia_smi("echo Driver mismatch; exit 18")
    with pytest.raises(ConfigError, match="nvidia-smi fails: Driver mismatch"):
        list(doctor._gpus(cpu))


def test_sizes_of_directories_do_not_follow_links(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "file")
    assert 1000 < doctor._bytes_in(tmp_path) < 2000


def test_the_command_needs_no_package_for_its_help_and_errors(tmp_path):
    """-S hides the installed packages."""
    environment = os.environ | {
        "PYTHONPATH": os.fspath(doctor.pathlib.Path(doctor.__file__).parents[1])
    }

    def call(*arguments):
        command = [sys.executable, "-S", "-m", "jaxcifar", "doctor", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path
        )

    assert "jaxcifar doctor\n" in call("--help").stdout
    wrong = call("--verbose")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: '--verbose' is not a flag; there are none\n"
    broken = call()
    assert broken.returncode == 2
    assert broken.stderr == ""
    lines = broken.stdout.splitlines()
    assert lines[-1].startswith("not ready: ModuleNotFoundError: No module named ")
    assert "jax missing" in line_of(lines, "packages")
