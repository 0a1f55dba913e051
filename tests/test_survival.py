"""Whatever kills a run, the same command goes on and ends with the same result, or says plainly
what is damaged.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxcifar import array_files, checkpoint_files, manifest
from jaxcifar.spec import ConfigError

pytestmark = pytest.mark.slow

CONFIG = """
from jaxcifar import config as config_lib

def get_config():
    config = config_lib.default()
    config.data.name = "synthetic100"
    config.data.synthetic_size = 600
    config.num_epochs = 12
    config.batch_size = 20
    config.model.name = "simple_cnn"
    config.model.width = 4
    config.augment = "random_flip"
    config.checkpoint.every_steps = 5
    config.tensorboard = True
    config.wandb.mode = "offline"
    return config
"""
TIMINGS = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def start(config_file):
    """Starts the training command: fn(workdir, *flags) -> process."""

    def start(workdir, *flags, **environment):
        command = [sys.executable, "-m", "jaxcifar.main", f"--config={config_file}"]
        return subprocess.Popen(
            [*command, f"--workdir={workdir}", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    return start


@pytest.fixture
def finish(start):
    """Runs the training command to its end: fn(workdir, *flags) -> exit code, output."""

    def finish(workdir, *flags, **environment):
        process = start(workdir, *flags, **environment)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in out + err, out + err
        return process.returncode, out + err

    return finish


@pytest.fixture(scope="module")
def undisturbed_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("undisturbed") / "run"


@pytest.fixture
def undisturbed(undisturbed_directory, finish):
    """The work directory of a run that nothing has disturbed, with a warm cache of programs."""
    code, output = finish(undisturbed_directory)
    assert code == 0, output
    return undisturbed_directory


def records(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in TIMINGS} for x in lines]


def newest(workdir, which):
    return max((workdir / "checkpoints" / which).glob("[0-9]*"), key=lambda path: int(path.name))


def assert_same_run(workdir, expected):
    assert records(workdir) == records(expected)
    for which in ("last", "best"):
        path, other = newest(workdir, which), newest(expected, which)
        assert path.name == other.name
        arrays, others = array_files.read(path / "state"), array_files.read(other / "state")
        assert arrays.keys() == others.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, others[name])
    scores = [
        json.loads((d / "summary.json").read_text())["test_loss"] for d in (workdir, expected)
    ]
    assert scores[0] == scores[1]


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not condition():
        time.sleep(0.002)


def test_random_kills_change_nothing(undisturbed, start, finish, tmp_path):
    """10 SIGKILLs at random moments, half of them in the middle of a save, and 3 SIGTERMs."""
    workdir, draw = tmp_path / "run", random.Random(0)
    kills = [signal.SIGKILL] * 10 + [signal.SIGTERM] * 3
    draw.shuffle(kills)
    steps_before_kill = 12 * 24 / len(kills)
    for index, number in enumerate(kills):
        process = start(workdir)
        target = int(steps_before_kill * (index + draw.random()))

        def is_there(target=target):
            last = workdir / "checkpoints" / "last"
            names = [path.name.partition(".")[0] for path in last.glob("[0-9]*")]
            return any(int(name) >= target for name in names)

        def is_saving(is_there=is_there):
            return is_there() and list((workdir / "checkpoints").glob("*/*.partial"))

        wait_for(is_saving if index % 2 else is_there, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode in (0, -number, 128 + number), (out, err)
        assert "Traceback" not in out + err, out + err
    code, output = finish(workdir)
    assert code == 0, output
    assert_same_run(workdir, undisturbed)
    assert_no_gap_or_double(workdir)


def assert_no_gap_or_double(workdir):
    """In metrics.jsonl, in the newest W&B file, and as TensorBoard's own reader shows it."""
    from test_tensorboard_log import points
    from wandb_files import newest_history

    epochs = list(range(1, 13))
    assert [record["epoch"] for record in records(workdir)] == epochs
    assert [row["epoch"] for row in newest_history(workdir)] == epochs
    assert [step for step, _ in points(workdir / "tensorboard", "val_acc")] == epochs


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The work directory of a run that was stopped in its sixth epoch."""
    return tmp_path_factory.mktemp("stopped") / "run"


@pytest.fixture
def copy_of_stopped(undisturbed, stopped, start, tmp_path):
    if not stopped.exists():
        process = start(stopped)
        wait_for(
            lambda: (stopped / "metrics.jsonl").exists() and len(records(stopped)) > 4, process
        )
        process.terminate()
        assert process.wait(60) == 143
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def damages(path):
    """Yields the three ways to damage a file, each after restoring it."""
    content = path.read_bytes()
    yield "deleted", path.unlink
    yield "cut", lambda: path.write_bytes(content[: len(content) // 2])
    flipped = bytearray(content)
    if flipped:
        flipped[len(flipped) // 2] ^= 1
        yield "flipped", lambda: path.write_bytes(flipped)


def test_every_damage_to_a_checkpoint_is_detected(copy_of_stopped, small_config):
    """Each file of each checkpoint cut, flipped and deleted in turn, as the run's owner sees it."""
    num_damages = 0
    for which in ("last", "best"):
        path = newest(copy_of_stopped, which)
        for file in [p for p in path.rglob("*") if p.is_file()]:
            backup = file.read_bytes()
            for _, damage in damages(file):
                damage()
                num_damages += 1
                assert manifest.check(path) != "intact"
                with contextlib.suppress(ConfigError):  # there is no other
                    assert checkpoint_files.find_newest(path.parent) != path
                file.write_bytes(backup)
            assert manifest.check(path) == "intact"
    assert num_damages > 40


@pytest.mark.parametrize(
    ("which", "kind"), [("last", "deleted"), ("last", "flipped"), ("best", "cut")]
)
def test_damaged_checkpoint_changes_no_result(copy_of_stopped, undisturbed, finish, which, kind):
    """The command itself; a random file of the newest checkpoint."""
    files = sorted(p for p in newest(copy_of_stopped, which).rglob("*") if p.stat().st_size > 1)
    file = random.Random(kind).choice([p for p in files if p.is_file()])
    dict(damages(file))[kind]()
    code, output = finish(copy_of_stopped)
    if code == 2:  # a best that no `last` holds
        assert which == "best"
        assert "best checkpoint" in output and "is damaged" in output
        return
    assert code == 0, output
    assert "damaged" in output or "no manifest" in output
    assert_same_run(copy_of_stopped, undisturbed)


def test_stray_directories_and_edited_copies_change_nothing(copy_of_stopped, undisturbed, finish):
    for which in ("last", "best"):
        (copy_of_stopped / "checkpoints" / which / "99999").mkdir()
    (copy_of_stopped / "config.json").unlink()
    (copy_of_stopped / "classes.json").write_text("[")
    with open(copy_of_stopped / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 6}\n{"epo')
    (copy_of_stopped / "summary.json").write_text("")
    code, output = finish(copy_of_stopped)
    assert code == 0, output
    shutil.rmtree(copy_of_stopped / "checkpoints" / "last" / "99999")
    assert_same_run(copy_of_stopped, undisturbed)


def test_second_process_is_refused_until_the_first_is_killed(undisturbed, start, finish, tmp_path):
    first = start(tmp_path / "run", "--config.num_epochs=10000")
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "last").exists(), first)
    for flags in ((), ("--fresh",)):
        code, output = finish(tmp_path / "run", *flags)
        assert code == 2
        assert f"in use by process {first.pid}" in output
    assert first.poll() is None
    first.kill()
    first.communicate()
    assert finish(tmp_path / "run", "--fresh")[0] == 0
    assert_same_run(tmp_path / "run", undisturbed)


def test_full_disk_loses_nothing(undisturbed, finish, tmp_path):
    """A file system of 3 MB; when room has been made the same command goes on."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)])
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted without root")
    try:
        code, output = finish(small / "run", "--config.checkpoint.keep=100")
        assert code == 2, output
        assert "No space left" in output or "no space" in output.lower()
        saved = sorted((small / "run" / "checkpoints" / "last").glob("[0-9]*"))
        assert saved
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        code, output = finish(small / "run", "--config.checkpoint.keep=100")
        assert code == 0, output
        assert "resuming" in output
        assert_same_run(small / "run", undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("act", [shutil.rmtree, lambda path: path.rename(path.parent / "moved")])
def test_vanished_directory_is_named(undisturbed, start, tmp_path, act):
    process = start(tmp_path / "run", "--config.num_epochs=10000", "--config.wandb.mode=disabled")
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "last").exists(), process)
    while (tmp_path / "run").exists():
        try:
            act(tmp_path / "run")
        except OSError:  # the run writes meanwhile
            continue
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, out + err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2, err


@pytest.mark.parametrize("output", ["closed", "full"])
def test_output_that_fails_does_not_stop_the_run(undisturbed, start, config_file, tmp_path, output):
    if output == "closed":
        process = start(tmp_path / "run")
        process.stdout.close()
        assert process.wait(timeout=120) == 0
    else:
        command = [sys.executable, "-m", "jaxcifar.main", f"--config={config_file}"]
        command += [f"--workdir={tmp_path / 'run'}", "--config.wandb.mode=disabled"]
        with open("/dev/full", "w") as full:
            assert subprocess.run(command, stdout=full, stderr=full, timeout=120).returncode == 0
    assert records(tmp_path / "run") == records(undisturbed)


def test_resumed_on_another_number_of_devices(undisturbed, finish, copy_of_stopped):
    """The same batches and draws: the losses agree to rounding, which 300 steps amplify."""
    code, output = finish(copy_of_stopped, "--config.parallel.cpu_devices=8")
    assert code == 0, output
    assert "on 8 × cpu" in output
    resumed = len(records(pathlib.Path(copy_of_stopped)))
    assert resumed == 12
    for record, expected in zip(records(copy_of_stopped), records(undisturbed), strict=True):
        assert record["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-2)


def test_preemption_drill(config_file, pytestconfig, tmp_path):
    command = [sys.executable, "scripts/preemption_drill.py", f"--config={config_file}"]
    command += ["--kills=2", f"--output={tmp_path}", "--config.wandb.mode=disabled"]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical after" in done.stdout
