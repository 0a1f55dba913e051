"""Sweeps: most tests with a fake training command, the slow ones with the real one."""

import base64
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("optuna")

import optuna
from optuna.trial import TrialState

from jaxcifar import config as config_lib
from jaxcifar import console
from jaxcifar.lock import kernel_id
from jaxcifar.report import sweep as report
from jaxcifar.sweep import __main__ as sweep_command
from jaxcifar.sweep import devices, results, spaces, training
from jaxcifar.sweep import study as study_lib
from jaxcifar.sweep.owner import Owner

pytestmark = [
    # Of tests that ask a study for trials without running them
    pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used"),
    pytest.mark.filterwarnings("ignore:.* is experimental"),
]

ROOT = pathlib.Path(__file__).parents[1]
SPACE = "optimizer.lr=log(1e-3, 1)"
CONFIG = """
from jaxcifar import config as config_lib

def get_config():
    config = config_lib.default()
    config.data.name = "synthetic100"
    config.data.synthetic_size = 600
    config.num_epochs = 3
    config.batch_size = 50
    config.model.name = "simple_cnn"
    config.model.width = 4
    return config
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def control(tmp_path, monkeypatch):
    """The directory whose files say how the fake training ends."""
    monkeypatch.setattr(training, "COMMAND", (sys.executable, ROOT / "tests" / "fake_training.py"))
    monkeypatch.setattr(training, "POLL_SECONDS", 0.02)
    path = tmp_path / "control"
    path.mkdir()
    monkeypatch.setenv("FAKE_TRAINING", str(path))
    return path


@pytest.fixture
def sweep(config_file, control, tmp_path, call_command, monkeypatch, request):
    """Runs a sweep in this process: fn(*arguments) -> exit code, stdout, stderr."""
    if "reports" not in request.fixturenames:
        monkeypatch.setattr(results, "write_report", lambda *_: "no report: not in this test")

    def run(*arguments, trials=4, spaces=(SPACE,)):
        flags = [f"--config={config_file}", "--study=s", f"--workdir={tmp_path / 'sweep'}"]
        flags += [f"--trials={trials}", "--config.num_epochs=3", *arguments, *spaces]
        return call_command(sweep_command.launch, *flags)

    return run


@pytest.fixture
def load_study(tmp_path):
    """Opens the study of `sweep` as a reader."""

    def load():
        return optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/sweep/study.db")

    return load


@pytest.fixture
def new_study(tmp_path):
    """Opens a study without running trials: fn() -> it."""
    config = config_lib.default()
    searched = spaces.parse([SPACE], config)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    return lambda: study_lib.open_study("s", url, config, searched, "median", 20)


def statuses(study):
    return [study_lib.status(trial) for trial in study_lib.latest(study)]


# --- whole sweeps ---------------------------------------------------------------------------------


def test_two_workers_find_a_better_config_and_a_second_start_does_nothing(
    reports, sweep, load_study, tmp_path
):
    code, out, err = sweep("--workers=2", "--pruner=none", trials=6)
    assert code == 0, err
    study = load_study()
    assert statuses(study) == ["complete"] * 6
    assert study.trials[0].params == {"optimizer.lr": 0.01}
    best = study_lib.best(study)
    assert study.trials[0].value < best.value <= 80  # on the test set it would be 99
    assert f"best: trial {best.number}, validation accuracy {best.value:.2f}%" in out

    found = config_lib.load(str(tmp_path / "sweep" / "best.py"))
    base = config_lib.load(str(tmp_path / "tiny.py"))
    assert found.optimizer.lr == best.params["optimizer.lr"]
    found.optimizer.lr = base.optimizer.lr
    assert config_lib.differences(base, found) == []

    page = (tmp_path / "sweep" / "report.html").read_text()
    for heading in ("Best", "History", "Importances", "Accuracy by key", "Trials", "Run it again"):
        assert f"<h2>{heading}</h2>" in page
    assert f"{best.value:.2f}%" in page

    code, out, _ = sweep(trials=6)
    assert code == 0
    assert "has 6 of 6 finished trials" in out
    assert "started" not in out
    code, out, _ = sweep(trials=7)
    assert code == 0
    assert statuses(load_study()) == ["complete"] * 7


def test_the_console_command_passes_overrides_on(config_file, control, tmp_path, call_command):
    flags = (f"--config={config_file}", "--study=s", f"--workdir={tmp_path / 'sweep'}")
    flags += ("--trials=2", "--config.num_epochs=2", SPACE)
    code, _, err = call_command(console.launch, "sweep", *flags)
    assert code == 0, err
    for number in (0, 1):
        metrics = tmp_path / "sweep" / f"trial-{number}" / "metrics.jsonl"
        assert len(metrics.read_text().splitlines()) == 2
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "python -m jaxcifar.sweep \\\n    --config=" in page


def test_diverged_trials_are_recorded_and_survived(sweep, load_study):
    code, out, err = sweep(trials=6, spaces=["optimizer.lr=choice(0.01, 5.0, 50.0)"])
    assert code == 0, err
    found = statuses(load_study())
    assert set(found) == {"complete", "diverged"}
    assert len(found) == 6
    assert "training diverged in epoch 1" in out
    assert "best: trial 0," in out


def test_bad_trials_are_pruned_and_the_config_itself_is_not(sweep, load_study, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.12")  # for the sweep to see an epoch before the next
    code, out, err = sweep("--config.num_epochs=5", "--config.optimizer.lr=0.001", trials=9)
    assert code == 0, err
    found = statuses(load_study())
    assert found[0] == "complete"
    assert found.count("pruned") > 0
    assert len(found) == 9
    assert "pruned after epoch" in out


def test_a_stopped_sweep_resumes_its_trials(sweep, load_study, control, tmp_path):
    (control / "wait").touch()
    metrics = [tmp_path / "sweep" / f"trial-{number}" / "metrics.jsonl" for number in (0, 1)]

    def stop():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all(path.exists() for path in metrics):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    code, out, _ = sweep("--workers=2")
    thread.join()
    assert code == 143
    assert "the same command resumes" in out
    assert sorted(statuses(load_study())) == ["waiting", "waiting"]
    (control / "wait").unlink()
    code, out, _ = sweep("--workers=2")
    assert code == 0
    assert "trial 0 resumed" in out
    assert "trial 1 resumed" in out
    assert statuses(load_study()) == ["complete"] * 4
    for path in metrics:
        assert "starting after 1 epochs" in path.with_name("output.log").read_text()
        assert len(path.read_text().splitlines()) == 3


def test_a_killed_training_is_resumed_at_once(sweep, load_study, control, tmp_path):
    (control / "kill").touch()
    code, out, err = sweep(trials=2)
    assert code == 0, err
    assert "trial 0: its process was stopped by signal 9; it will be resumed" in out
    assert statuses(load_study()) == ["complete"] * 2
    assert "starting after 1 epochs" in (tmp_path / "sweep/trial-0/output.log").read_text()


def test_a_config_that_does_not_train_stops_the_sweep_until_it_is_fixed(sweep, load_study, control):
    (control / "fail").touch()
    code, _, err = sweep()
    assert code == 2
    assert "the config itself does not train: no space left (see " in err
    assert len(err.splitlines()) == 1
    (control / "fail").unlink()
    code, out, err = sweep()
    assert code == 0, err
    assert "trial 0 resumed" in out
    assert statuses(load_study()) == ["complete"] * 4


def test_a_storage_that_breaks_ends_the_sweep_and_it_resumes(sweep, load_study, tmp_path, control):
    (control / "wait").touch()
    database, away = tmp_path / "sweep" / "study.db", tmp_path / "away.db"

    def break_storage():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(database.parent.glob("*/metrics.jsonl")):
            time.sleep(0.02)
        database.rename(away)
        (control / "wait").unlink()

    thread = threading.Thread(target=break_storage)
    thread.start()
    code, _, err = sweep()
    thread.join()
    assert code == 2, err
    assert "the sweep's storage failed (" in err
    assert "Traceback" not in err
    away.rename(database)
    code, out, err = sweep()
    assert code == 0, err
    assert "trial 0 resumed" in out
    assert statuses(load_study()) == ["complete"] * 4


def test_three_failures_in_a_row_stop_the_sweep(sweep, load_study, control):
    assert sweep(trials=1)[0] == 0
    (control / "fail").touch()
    code, _, err = sweep(trials=9)
    assert code == 2
    assert "3 trials in a row failed, the last with: no space left" in err
    assert statuses(load_study()) == ["complete", "failed", "failed", "failed"]
    (control / "fail").unlink()
    assert sweep(trials=5)[0] == 0
    assert statuses(load_study()) == ["complete"] * 5


def test_combinations_that_are_not_valid_are_skipped(sweep, load_study):
    both = ["mixup.prob=uniform(0, 1)", "cutmix.prob=uniform(0, 1)"]
    code, out, err = sweep(trials=6, spaces=[SPACE, *both])
    assert code == 0, err
    assert study_lib.num_finished(load_study()) == 6
    assert "invalid" in statuses(load_study())
    assert "sum to more than 1" in out


@pytest.mark.parametrize(
    ("arguments", "searched", "message"),
    [
        (["--config.seed=7"], [SPACE], "seed: the study has 42, you asked for 7"),
        (["--config.num_epochs=9"], [SPACE], "num_epochs: the study has 3, you asked for 9"),
        ([], ["optimizer.lr=log(1e-4, 1)"], "log(0.001, 1), you asked for log(0.0001, 1)"),
        (
            [],
            [SPACE, "model.dropout=uniform(0, 0.6)"],
            "space of model.dropout: the study has none",
        ),
    ],
)
def test_another_config_or_space_is_refused(sweep, arguments, searched, message):
    assert sweep(trials=1)[0] == 0
    code, _, err = sweep(*arguments, trials=1, spaces=searched)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study="], "--study is missing"),
        (["--study=a/b"], "must be letters, digits"),
        (["--trials=0"], "trials"),
        (["--pruner=best"], "median"),
        (["--storage=nosuch://x"], "the sweep's storage cannot be used"),
        (
            ["--config.optimizer.lr=5"],
            "the config's optimizer.lr is 5.0, which is not in log(0.001",
        ),
        (["optimizer.name=choice(sgd, lion)"], "must be one of 'sgd'"),
        (["--optimizer.lr=1"], "optimizer.lr"),
    ],
)
def test_invalid_commands_exit_with_2_and_a_short_message(sweep, arguments, message):
    code, _, err = sweep(*arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err


def test_directory_of_a_run_is_refused(sweep, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "config.json").write_text("{}")
    code, _, err = sweep()
    assert code == 2
    assert "holds a run; choose another --study" in err


def test_without_optuna_it_says_what_to_install(sweep, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = sweep()
    assert code == 2
    assert err == "error: sweeps need Optuna: pip install 'optuna>=4.9'\n"


def test_help_needs_no_optuna_and_exits_with_0():
    code = (
        "import runpy, sys; sys.argv = ['sweep.py', '--help']\n"
        "try: runpy.run_path('scripts/sweep.py', run_name='__main__')\n"
        "except SystemExit as error: assert not error.code\n"
        "assert not {'optuna', 'jax'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--pruner" in done.stdout


# --- nothing is lost ------------------------------------------------------------------------------


def test_trials_of_a_dead_process_are_queued_at_once(new_study, tmp_path):
    study, owner = new_study(), Owner(tmp_path / "processes")
    dead = f"{kernel_id()}-dead"
    for trial, name in ((study.ask(), dead), (study.ask(), owner.name), (study.ask(), "far-away")):
        trial.suggest_float("optimizer.lr", 1e-3, 1, log=True)
        trial.set_user_attr(study_lib.OWNER, name)
    for name in (dead, "far-away"):  # which nobody has locked here
        (tmp_path / "processes" / name).touch()
    study_lib.recover(study, owner.is_dead)
    study_lib.recover(study, owner.is_dead)
    assert statuses(study) == ["waiting", "running", "running"]
    repetition = study.ask()
    assert repetition.number == 3
    assert repetition.params == study.trials[0].params
    assert study_lib.origin(study.trials[3]) == 0
    assert study_lib.attempts(study.trials[3]) == 2


def test_trials_that_nobody_has_queued_again_are_found(new_study, monkeypatch):
    study = new_study()
    study.tell(study.ask(), state=TrialState.FAIL)  # by a process that was killed before it did
    study.ask()  # killed before it could say whose it is
    study_lib.recover(study, lambda name: False)
    assert statuses(study) == ["interrupted", "running"]

    monkeypatch.setattr(study_lib, "SETTLING_SECONDS", -1)
    monkeypatch.setattr(study_lib, "SILENCE_SECONDS", -1)
    study_lib.recover(study, lambda name: False)
    assert statuses(study) == ["waiting", "waiting"]


def test_a_trial_that_was_queued_twice_runs_once(new_study):
    study = new_study()
    study.tell(study.ask(), state=TrialState.FAIL)
    for _ in range(2):
        study_lib.repeat(study, study.trials[0])
    first, second = study.ask(), study.ask()
    assert not study_lib.is_repeated(study, study.trials[first.number])
    assert study_lib.is_repeated(study, study.trials[second.number])


def test_draws_depend_on_the_trial_and_not_on_the_process(tmp_path):
    config = config_lib.default()
    searched = spaces.parse([SPACE], config)

    def draw(file, restart):
        values = []
        for index in range(4):
            if index == 0 or restart:
                url = f"sqlite:///{tmp_path / file}"
                study = study_lib.open_study("s", url, config, searched, "none", 20)
            values.append(searched["optimizer.lr"].suggest(study.ask()))
        return values

    values = draw("a.db", False)
    assert values == draw("b.db", True)
    assert len(set(values)) == 4


# --- parts ----------------------------------------------------------------------------------------


def test_the_best_config_registers_what_its_own_file_does(tmp_path, monkeypatch):
    registered = (
        "from jaxcifar import schedules\n"
        "@schedules.schedule('of_the_sweep')\n"
        "def of_the_sweep(lr: float, *, slope: float = 0.5):\n"
        '    """Returns lr."""\n'
        "    return lambda step: lr * slope\n"
    )
    (tmp_path / "mine.py").write_text(
        registered
        + CONFIG.replace("    return", "    config.schedule.name = 'of_the_sweep'\n    return")
    )
    registry = config_lib.GROUPS["schedule"].registry
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    config = config_lib.load(str(tmp_path / "mine.py"))
    (tmp_path / "sweep").mkdir()
    path = tmp_path / "sweep" / "best.py"
    path.write_text(results.config_source(config, {"schedule.slope": 0.25}, "Best.", path))
    del registry._entries["of_the_sweep"]
    found = config_lib.load(str(path))
    assert (found.schedule.name, found.schedule.slope) == ("of_the_sweep", 0.25)


def test_workers_share_the_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert devices.environment(0, 1) == {}
    assert devices.environment(1, 2) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert devices.environment(0, 2) == {"CUDA_VISIBLE_DEVICES": "0,2"}
    shared = devices.environment(4, 6)
    assert shared == {"CUDA_VISIBLE_DEVICES": "1", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.environment(1, 2) == {}


def test_report_of_a_sweep_without_a_complete_trial(tmp_path):
    trials = [report.Trial(0, "running", {"optimizer.lr": 0.1}, None, 0, 1)]
    searched = {"optimizer.lr": "log(0.01, 1)"}
    sweep = report.Sweep("<s>", trials, searched, frozenset(searched), {}, ["--study=s"])
    page = report.write(sweep, tmp_path / "report.html").read_text()
    assert "No trial is complete yet." in page
    assert "<s>" not in page


def test_report_has_plain_numbers_on_logarithmic_axes(tmp_path):
    trials = [
        report.Trial(i, "complete", {"optimizer.lr": lr, "batch_size": size}, 50.0 + i, 3, 1)
        for i, (lr, size) in enumerate([(0.001, 20), (0.01, 30), (0.1, 50)])
    ]
    searched = {"optimizer.lr": "log(0.001, 0.1)", "batch_size": "log(16, 64)"}
    sweep = report.Sweep("s", trials, searched, frozenset(searched), {}, ["--study=s"])
    page = report.write(sweep, tmp_path / "report.html").read_text()
    images = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    svgs = [base64.b64decode(image).decode() for image in images]
    assert len(svgs) == 3
    assert not any("mathdefault" in svg for svg in svgs)
    assert ">0.01</text>" in svgs[1]
    assert ">20</text>" in svgs[2]


# --- with the real training command ---------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_loses_no_trial(config_file, tmp_path):
    command = [sys.executable, "-m", "jaxcifar.sweep", f"--config={config_file}", "--study=s"]
    command += ["--trials=5", "--workers=2", f"--workdir={tmp_path / 'sweep'}", "--pruner=none"]
    command += ["optimizer.lr=log(1e-4, 1e-1)"]
    for count in (1, 3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            files = (tmp_path / "sweep").glob("trial-*/metrics.jsonl")
            if sum(len(path.read_text().splitlines()) for path in files) > 3 * count:
                break
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/sweep/study.db")
    assert statuses(study) == ["complete"] * 5
    repeated = [t for t in study.trials if t.state is TrialState.FAIL]
    assert len(study.trials) == 5 + len(repeated)
    assert repeated
    best = study_lib.best(study)
    assert best.value >= study_lib.latest(study)[0].value
    command = [sys.executable, "-m", "jaxcifar.main", f"--config={tmp_path / 'sweep' / 'best.py'}"]
    command += [f"--workdir={tmp_path / 'best'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # The same computation as the trial's, whose work directory was resumed
    assert f"validation accuracy {best.value:.2f}%" in done.stdout
