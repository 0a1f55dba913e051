import json
import os
import signal
import subprocess
import sys
import time

import pytest

SMALL = (
    "--config=configs/part1.py",
    "--config.data.name=synthetic100",
    "--config.data.synthetic_size=600",
    "--config.batch_size=50",
    "--config.model.width=4",
)


@pytest.fixture(autouse=True)
def in_the_checkout(pytestconfig, monkeypatch):
    monkeypatch.chdir(pytestconfig.rootpath)


def test_import_is_light():
    heavy = {"torch", "tensorflow", "wandb", "tensorflow_datasets", "jax", "flax"}
    code = f"import sys, jaxcifar.main; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_library_import_starts_no_device_and_needs_no_tracker():
    heavy = {"torch", "tensorflow", "wandb", "tensorflow_datasets"}
    code = (
        "import sys, jax, jaxcifar.train; jax.config.update('jax_num_cpu_devices', 3); "
        f"assert jax.device_count() == 3; assert not {heavy} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )


def test_help(run_main):
    done = run_main("--help")
    assert done.returncode == 0
    assert "--config.optimizer.lr=0.01" in done.stdout


def test_help_does_not_need_the_config_it_is_asked_about(call_main):
    code, out, err = call_main("--help", "--config=part9")
    assert code == 0
    assert "--config.optimizer.lr=0.01" in out
    assert "no config file 'part9'" in err


def test_help_shows_config_values_with_overrides(run_main):
    done = run_main("--config=configs/part2.py", "--config.seed=7", "--help")
    assert done.returncode == 0
    assert "--config.optimizer.lr=0.005" in done.stdout
    assert "--config.seed=7\n" in done.stdout


def test_train_finish_and_fresh(run_main, call_main, tmp_path):
    run = tmp_path / "run"
    flags = (*SMALL, "--config.num_epochs=1", f"--workdir={run}")
    first = run_main(*flags)
    assert first.returncode == 0, first.stderr
    assert f"results are in {run}" in first.stdout
    assert "  worst classes: " in first.stdout
    assert "epoch   1" in first.stdout
    code, out, _ = call_main(*flags)
    assert code == 0
    assert "already finished" in out
    assert "test accuracy" in out
    code, _, err = call_main(*flags, "--config.seed=1")
    assert code == 2
    assert "seed: the run has 42, you asked for 1" in err
    assert "--fresh" in err
    code, out, err = call_main(*flags, "--config.seed=1", "--fresh")
    assert code == 0, err
    assert (tmp_path / "run.old-1" / "summary.json").exists()


@pytest.mark.parametrize(
    ("ignored", "number", "exit_code"),
    [
        (False, signal.SIGINT, 130),
        (False, signal.SIGTERM, 143),
        (False, signal.SIGHUP, 129),
        (True, signal.SIGTERM, 143),  # SIGINT is ignored, as in a background job, and sent first
    ],
)
def test_signals_save_and_report(tmp_path, ignored, number, exit_code):
    run = tmp_path / "run"
    # The tests' own parent may ignore SIGINT, and a child would inherit that.
    handler = "signal.SIG_IGN" if ignored else "signal.default_int_handler"
    code_of_the_command = (
        f"import runpy, signal; signal.signal(signal.SIGINT, {handler}); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "runpy.run_module('jaxcifar.main', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", code_of_the_command, *SMALL, f"--workdir={run}"]
    command.append("--config.num_epochs=1000")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = run / "metrics.jsonl"

    def wait_for_epochs(count):
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.exists() and metrics.read_text().count("\n") >= count:
                return
            time.sleep(0.1)

    wait_for_epochs(1)
    if ignored:
        process.send_signal(signal.SIGINT)
        wait_for_epochs(metrics.read_text().count("\n") + 2)
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == exit_code, err
    assert "stopped; state saved" in out
    assert "Traceback" not in err
    assert json.loads(metrics.read_text().splitlines()[0])["epoch"] == 1


def test_divergence_exits_with_3(call_main, tmp_path):
    code, _, err = call_main(*SMALL, "--config.optimizer.lr=1e6", f"--workdir={tmp_path / 'run'}")
    assert code == 3
    assert err.splitlines()[-1].startswith("error: training diverged")


def test_a_user_error_exits_with_2_in_a_process_of_its_own(run_main):
    done = run_main("--config=configs/part1.py", "--config.seed=x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: config.seed='x' is not valid")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--config is missing"),
        (["--config=configs/nosuch.py"], "no config file 'configs/nosuch.py'"),
        (["--config=part9"], "known by name: part1, part2"),
        (["--config=configs"], "no config file"),
        (["--config=configs/part1.py", "--lr=0.1"], "write --config.optimizer.lr=VALUE"),
        (["--config=configs/part1.py", "--config.augment=flip"], "did you mean random_flip?"),
        (["--config=jaxcifar/__init__.py"], "get_config() is missing"),
        (["--config"], "config"),
        (["--config=configs/part1.py", "--workdri=x"], "workdri"),
        (["--config=configs/part1.py", "stray"], "'stray' is not a flag"),
        (["--config=LICENSE"], "LICENSE, line 2"),
        (["--config=configs/part1.py", "--config.seed"], "has no value"),
        (["--config=configs/part1.py", "--config.seed", "3"], "write --config.seed=VALUE"),
        (["--config=configs/part1.py", "--config.seed="], "an integer"),
        (["--config=configs/part1.py", "--config.sed=3"], "did you mean seed"),
        (["--config=configs/part1.py", "-config.seed=3"], "one dash: write --config.seed=3"),
        (["--config=configs/part1.py", "--config.batch_size=0"], "in [1, 2147483647]"),
        (["--config=configs/part1.py", "--config.batch_size=1e3"], "an integer"),
        (["--config=configs/part1.py", "--config.data.val_fraction=1.5"], "in (0, 1)"),
        (["--config=configs/part1.py", "--config.model.name=vgg"], "'simple_cnn'"),
        (["--config=configs/part1.py", "--config.optimizer=sgd"], "is a group"),
        (["--config=configs/part1.py", "--config.optimizer.lr=-1"], "above 0"),
        (["--config=configs/part1.py", "--config.data.name=folder"], "data.dir is unset"),
        (["--config=configs/part1.py", "--config.schedule.name=onecycle"], "max_lr is unset"),
        (["--config=configs/part1.py", "--config.schedule.pct_start=1.5"], "schedule.pct_start"),
        ([*SMALL, "--config.schedule.name=cosine", "--config.schedule.warmup=99"], "warmup=99"),
        (["--config=configs/part1.py", "--fresh=perhaps"], "fresh"),
        (["--config=configs/part1.py", "--workdir=README.md"], "cannot be used"),
        (
            ["--config=configs/part1.py", "--config.data.name=folder", "--config.data.dir=/nope"],
            "is not a folder",
        ),
    ],
)
def test_invalid_commands_exit_with_2_and_a_short_message(call_main, tmp_path, flags, message):
    if "README.md" not in " ".join(flags):
        flags = [*flags, f"--workdir={tmp_path / 'run'}"]
    code, _, err = call_main(*flags)
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2
