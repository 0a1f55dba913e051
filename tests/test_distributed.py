"""Several processes train what one does, stop together, and resume after any of them was killed.

The slow tests run two real processes on this machine, which exchange their sums through TCP.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from resnet_weights import WIDTH, abstract, draw

from jaxcifar import array_files, distributed, followers, signals, state_dict_files
from jaxcifar import config as config_lib
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError

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
    config.mixup.prob = 0.5
    config.optimizer.clip_norm = 5.0
    config.checkpoint.every_steps = 5
    config.checkpoint.every_seconds = 0.5
    config.wandb.mode = "disabled"
    return config
"""
TIMINGS = ("seconds", "images_per_second")
SECONDS_TO_END = 30  # within which a process ends after another has died
ROUNDING = 1e-6  # of float32; another order of a sum's terms, in metrics of one step or a few


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process_id": 1}, "has no effect with parallel.distributed=False"),
        ({"distributed": True, "process_id": 1}, "set parallel.coordinator and parallel.num_proc"),
        ({"distributed": True, "coordinator": "host"}, "host:port"),
        ({"distributed": True, "coordinator": "host:0"}, "host:port"),
        (
            {"distributed": True, "coordinator": "h:1", "num_processes": 2, "process_id": 2},
            "must be less than parallel.num_processes=2",
        ),
    ],
)
def test_incomplete_settings_are_refused(changes, message):
    config = config_lib.default()
    config.parallel.update(changes)
    with pytest.raises(ConfigError, match=message):
        config_lib.validate(config)


def test_settings_of_processes_are_no_differences(small_config):
    other = small_config.copy_and_resolve_references()
    other.parallel.update(
        distributed=True, coordinator="host:1", num_processes=2, process_id=0, cpu_devices=1
    )
    config_lib.validate(other)
    assert config_lib.differences(small_config, other) == []


def test_jax_that_has_started_is_named(small_config, tmp_path):
    small_config.parallel.distributed = True
    with pytest.raises(ConfigError, match="JAX has already started"):
        followers.claim(small_config, tmp_path)


def test_port_in_use_is_named():
    with socket.create_server(("", 0)) as server:
        config = config_lib.default()
        config.parallel.update(
            coordinator=f"localhost:{server.getsockname()[1]}", num_processes=2, process_id=0
        )
        with pytest.raises(ConfigError, match="process 0 cannot listen on port"):
            distributed.initialize(config.parallel)


@pytest.mark.parametrize("host", ["localhost", "host.invalid"])
def test_process_0_that_is_not_there_is_named(host, monkeypatch):
    monkeypatch.setattr(distributed, "INITIALIZATION_TIMEOUT_SECONDS", 0)
    config = config_lib.default()
    config.parallel.update(coordinator=f"{host}:{free_port()}", num_processes=2, process_id=1)
    with pytest.raises(ConfigError, match="process 0 cannot be reached there"):
        distributed.initialize(config.parallel)


def test_one_process_exchanges_nothing(monkeypatch):
    monkeypatch.setattr(distributed, "_exchange", None)
    assert distributed.is_main()
    assert distributed.gather([3, 4]).tolist() == [[3, 4]]
    assert distributed.share_json({"a": 1}) == {"a": 1}
    tree = {"a": np.ones(2)}
    assert distributed.share(tree) is tree
    error = ConfigError("as it was raised")
    with pytest.raises(ConfigError) as caught, distributed.together():
        raise error
    assert caught.value is error
    assert distributed.exit_code(2, error) == 2


def test_signal_of_any_process_counts_for_all_from_the_next_exchange_on(monkeypatch):
    monkeypatch.setattr(distributed, "num_processes", lambda: 3)
    rows = [[0, 1], [0, 0], [0, 0]]
    monkeypatch.setattr(distributed, "gather", lambda values: np.array(rows))
    stop = signals.StopRequest()
    stop.received = signal.SIGINT  # after the exchange
    assert stop.agree(False) and not stop
    rows[2][0] = signal.SIGTERM
    with pytest.raises(signals.Stopped):
        stop.check()
    assert stop.signal == signal.SIGTERM
    assert stop.exit_exception().code == 143


def test_follower_writes_and_prints_nothing(small_config, tmp_path, capsys):
    small_config.wandb.mode, small_config.tensorboard = "offline", True
    with followers.FollowerRun(small_config, tmp_path / "run", None, None) as run:
        print("hidden")
        run.write_copies(None)
        run.remove_summary()
        run.add_record({})
        assert not run.is_main and run.finished_summary() is None
        assert run.config.wandb.mode == "disabled" and not run.config.tensorboard
    print("shown")
    assert capsys.readouterr().out == "shown\n"
    assert not (tmp_path / "run").exists()
    assert small_config.tensorboard


# --- two processes --------------------------------------------------------------------------------


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("distributed")
    (directory / "tiny.py").write_text(CONFIG)
    return directory


@pytest.fixture(scope="module")
def start(base):
    """Starts the training command: fn(workdir, *flags, name="one", **environment) -> process; its
    output goes to a file, `output`.
    """
    processes = []

    def start(workdir, *flags, name="one", **environment):
        command = [sys.executable, "-m", "jaxcifar.main", f"--config={base / 'tiny.py'}"]
        path = base / f"{workdir.name}-{name}-{len(processes)}.log"
        with open(path, "w") as file:
            process = subprocess.Popen(
                [*command, f"--workdir={workdir}", *flags],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"WANDB_MODE": "disabled", "JAXCIFAR_CACHE": str(base / "cache")}
                | environment,
            )
        process.output = path.read_text
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def start_two(start):
    """Starts two processes: fn(workdir, *flags, flags_of_second=()) -> both."""

    def start_two(workdir, *flags, flags_of_second=()):
        shared = ["--config.parallel.distributed=True", "--config.parallel.num_processes=2"]
        shared.append(f"--config.parallel.coordinator=127.0.0.1:{free_port()}")
        return [
            start(
                workdir,
                *flags,
                *(flags_of_second if index else ()),
                *shared,
                f"--config.parallel.process_id={index}",
                name=str(index),
            )
            for index in range(2)
        ]

    return start_two


def finish(*processes, code=0, timeout=240):
    """Waits for processes, and checks their exit codes; returns their output."""
    deadline = time.monotonic() + timeout
    for process in processes:
        process.wait(deadline - time.monotonic())
    outputs = [process.output() for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), outputs
    assert "Traceback" not in "".join(outputs), outputs
    return outputs


def wait_for_step(workdir, step, *processes):
    """Waits until a run has saved a step."""
    deadline = time.monotonic() + 120
    last = workdir / "checkpoints" / "last"
    while not any(int(path.name.partition(".")[0]) >= step for path in last.glob("[0-9]*")):
        assert time.monotonic() < deadline, [process.output() for process in processes]
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


def records(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in TIMINGS} for x in lines]


def assert_same_run(workdir, expected, rel=0.0):
    for record, other in zip(records(workdir), records(expected), strict=True):
        assert record == pytest.approx(other, rel=rel, abs=0)
    states = []
    for directory in (workdir, expected):
        steps = (directory / "checkpoints" / "last").glob("[0-9]*")
        states.append(array_files.read(max(steps, key=lambda p: int(p.name)) / "state"))
    assert states[0].keys() == states[1].keys()
    if not rel:
        for name, array in states[0].items():
            np.testing.assert_array_equal(array, states[1][name])
    scores = [json.loads((d / "summary.json").read_text()) for d in (workdir, expected)]
    assert scores[0]["test_loss"] == pytest.approx(scores[1]["test_loss"], rel=rel or ROUNDING)


@pytest.fixture(scope="module")
def two(base, start_two):
    """The work directory of a run of two processes that nothing has disturbed."""
    outputs = finish(*start_two(base / "two"))
    assert "on 2 × cpu in 2 processes" in outputs[0]
    assert "test accuracy" in outputs[0]
    lines = outputs[1].splitlines()
    assert [line for line in lines if "Gloo" not in line and "waiting for" not in line] == []
    return base / "two"


@pytest.mark.slow
def test_two_processes_equal_one_with_as_many_devices(two, base, start):
    """The same partitioned program: it differs only in what adds two numbers. 300 steps would
    amplify a rounding error to about 1e-2 of a loss.
    """
    finish(start(base / "one", "--config.parallel.cpu_devices=2"))
    assert_same_run(two, base / "one", rel=1e-3)


@pytest.mark.slow
def test_two_processes_equal_one_with_one_device(base, start, start_two):
    """One epoch of 24 steps: sums over the batch in another order."""
    flags = ["--config.num_epochs=1"]
    finish(*start_two(base / "two-short", *flags))
    finish(start(base / "one-short", *flags))
    assert_same_run(base / "two-short", base / "one-short", rel=10 * ROUNDING)


@pytest.mark.slow
def test_finished_run_is_recognized_by_both(two, start_two):
    outputs = finish(*start_two(two))
    assert "already finished" in outputs[0]
    assert "finished" not in outputs[1]


@pytest.mark.slow
@pytest.mark.parametrize("receiver", [0, 1])
def test_signal_to_either_stops_both_and_the_run_resumes(two, base, start_two, receiver):
    workdir = base / f"stopped-{receiver}"
    both = start_two(workdir)
    wait_for_step(workdir, 100, *both)
    both[receiver].terminate()
    outputs = finish(*both, code=143, timeout=60)
    assert "state saved" in outputs[0]
    outputs = finish(*start_two(workdir))
    assert "resuming in epoch" in outputs[0]
    assert_same_run(workdir, two)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_process_ends_the_other_and_the_run_resumes(two, base, start_two, victim):
    workdir = base / f"killed-{victim}"
    both = start_two(workdir)
    wait_for_step(workdir, 100, *both)
    both[victim].kill()
    survivor = both[1 - victim]
    assert survivor.wait(SECONDS_TO_END) in (2, 134, -signal.SIGABRT)
    assert "Traceback" not in survivor.output()
    outputs = finish(*start_two(workdir))
    assert "resuming in epoch" in outputs[0]
    assert_same_run(workdir, two)


@pytest.mark.slow
def test_resumed_with_another_number_of_processes(two, base, start, start_two):
    """Rounding differs from the first step after that, and steps amplify it."""
    for name, first, second in (("fewer", start_two, start), ("more", start, start_two)):
        workdir = base / name
        processes = first(workdir)
        processes = processes if isinstance(processes, list) else [processes]
        wait_for_step(workdir, 200, *processes)
        processes[0].terminate()
        finish(*processes, code=143, timeout=60)
        processes = second(workdir)
        processes = processes if isinstance(processes, list) else [processes]
        assert "resuming in epoch" in finish(*processes)[0]
        for record, other in zip(records(workdir), records(two), strict=True):
            assert record["train_loss"] == pytest.approx(other["train_loss"], rel=1e-2)


@pytest.mark.slow
def test_what_process_0_refuses_ends_both(two, start_two):
    outputs = finish(*start_two(two, "--config.batch_size=30"), code=2, timeout=60)
    for output in outputs:
        assert "batch_size: the run has 20, you asked for 30" in output
    assert "process 0 cannot go on" in outputs[1]


@pytest.mark.slow
def test_processes_with_different_configs_are_refused(base, start_two):
    both = start_two(base / "different", flags_of_second=["--config.batch_size=30"])
    outputs = finish(*both, code=2, timeout=60)
    for output in outputs:
        assert "batch_size: process 0 has 20, this one 30" in output
    assert not (base / "different").exists()


@pytest.mark.slow
def test_error_in_one_process_ends_both(base, start_two, image_folder):
    flags = ["--config.data.name=folder", f"--config.data.dir={image_folder}"]
    both = start_two(base / "data", *flags, flags_of_second=["--config.data.dir=nowhere"])
    outputs = finish(*both, code=2, timeout=60)
    assert "error: process 1 cannot go on" in outputs[0]
    assert all("nowhere" in output for output in outputs)


@pytest.mark.slow
def test_processes_with_different_images_are_refused(base, start_two, image_folder):
    other = image_folder.with_name("other")
    shutil.copytree(image_folder, other)
    (other / "train" / "dark" / "00.png").unlink()
    flags = ["--config.data.name=folder", f"--config.data.dir={image_folder}"]
    both = start_two(base / "images", *flags, flags_of_second=[f"--config.data.dir={other}"])
    for output in finish(*both, code=2, timeout=60):
        assert "its images differ from those of process 0" in output


@pytest.mark.slow
def test_weights_on_the_hub_reach_both(start_two, hub_server, tmp_path, monkeypatch):
    content = state_dict_files.to_bytes(draw(abstract(num_classes=100, stem="cifar")))
    commit = hub_server.add("me/net", {"model.safetensors": content})
    for name, value in hub_server.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    flags = ["--config.model.name=resnet18", f"--config.model.width={WIDTH}"]
    flags += ["--config.num_epochs=1", "--config.model.pretrained=hf://me/net"]
    outputs = finish(*start_two(tmp_path / "run", *flags))
    assert f"loaded 102 of 102 tensors from hf://me/net@{commit}\n" in outputs[0]
    hub_server.add("me/net", {"model.safetensors": content + b" "})
    for output in finish(*start_two(tmp_path / "run", *flags), code=2, timeout=60):
        assert f"the run has 'hf://me/net@{commit}'" in output


@pytest.mark.slow
def test_slurm_is_found(base, start):
    """From the variables that srun sets."""
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    job["JAX_COORDINATOR_PORT"] = str(free_port())
    flags = ["--config.parallel.distributed=True", "--config.num_epochs=1"]
    both = [
        start(base / "slurm", *flags, **job, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        for rank in ("0", "1")
    ]
    assert "on 2 × cpu in 2 processes" in finish(*both)[0]


@pytest.mark.slow
def test_no_cluster_is_named(base, start):
    (output,) = finish(start(base / "alone", "--config.parallel.distributed=True"), code=2)
    assert output.startswith("error: config.parallel.distributed=True, but JAX finds no SLURM")
    assert len(output.splitlines()) == 1


def test_claim_in_one_process_is_a_plain_run(small_config, tmp_path):
    with followers.claim(small_config, tmp_path / "run") as run:
        assert type(run) is Run and run.is_main
