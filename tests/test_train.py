import json
import os
import signal
import threading

import pytest

from jaxcifar import program, train
from jaxcifar.spec import ConfigError


def records(workdir):
    """Returns a run's records without their timings."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    timings = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in timings} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of `uninterrupted_run`, which the first test that needs it trains."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def uninterrupted_run(finished, small_config):
    """A finished run to compare with: its work directory and its summary."""
    return finished, train.train_and_evaluate(small_config, finished)


def test_writes_documented_files(uninterrupted_run, small_config):
    workdir, summary = uninterrupted_run
    assert json.loads((workdir / "summary.json").read_text()) == summary
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert [record["step"] for record in records] == [10, 20, 30]
    assert summary["best_val_acc"] == max(record["val_acc"] for record in records)
    assert records[summary["best_epoch"] - 1]["val_acc"] == summary["best_val_acc"]
    assert summary["num_params"] > 0
    assert summary["wall_seconds"] == pytest.approx(sum(r["seconds"] for r in records))
    assert set(summary["versions"]) >= {"jax", "flax", "jaxcifar"}
    assert (workdir / "checkpoints" / "best").is_dir()


def test_finished_run_is_returned_and_not_repeated(uninterrupted_run, small_config):
    workdir, summary = uninterrupted_run
    before = (workdir / "metrics.jsonl").stat().st_mtime_ns
    assert train.train_and_evaluate(small_config, workdir) == summary
    assert (workdir / "metrics.jsonl").stat().st_mtime_ns == before


def test_same_config_is_bit_reproducible(uninterrupted_run, small_config, tmp_path):
    again = train.train_and_evaluate(small_config, tmp_path / "again")
    assert records(tmp_path / "again") == records(uninterrupted_run[0])
    assert again["test_loss"] == uninterrupted_run[1]["test_loss"]


def stop_after(monkeypatch, num_calls):
    """Sends this process SIGTERM once, at its `num_calls`-th device call."""
    calls = []
    plan_calls = program.plan_calls

    def stopping_plan(*arguments):
        for call in plan_calls(*arguments):
            calls.append(call)
            if len(calls) == num_calls:
                os.kill(os.getpid(), signal.SIGTERM)
            yield call

    monkeypatch.setattr(program, "plan_calls", stopping_plan)


@pytest.mark.parametrize("after", [1, 4, 10, 17])
def test_stopped_and_resumed_run_is_bit_identical(
    uninterrupted_run, small_config, tmp_path, monkeypatch, after
):
    """Stops after that many device calls, at and between ends of epochs."""
    stop_after(monkeypatch, after)
    with pytest.raises(SystemExit) as caught:
        train.train_and_evaluate(small_config, tmp_path / "run")
    assert caught.value.code == 143
    assert len(records(tmp_path / "run")) == (after - 1) // 10
    resumed = train.train_and_evaluate(small_config, tmp_path / "run")
    assert records(tmp_path / "run") == records(uninterrupted_run[0])
    assert resumed["test_loss"] == uninterrupted_run[1]["test_loss"]


def test_unfinished_run_can_be_extended(uninterrupted_run, small_config, tmp_path):
    small_config.num_epochs = 1
    train.train_and_evaluate(small_config, tmp_path / "run")
    small_config.num_epochs = 3
    train.train_and_evaluate(small_config, tmp_path / "run")
    assert records(tmp_path / "run") == records(uninterrupted_run[0])


def test_plateau_and_ema_survive_a_restart(small_config, tmp_path, monkeypatch):
    small_config.optimizer.name = "adamw"
    small_config.optimizer.lr = 1e-3
    small_config.ema.decay = 0.9
    small_config.schedule.name = "plateau"
    small_config.schedule.patience = 0
    small_config.schedule.threshold = 0.5  # no epoch is that much better
    unbroken = train.train_and_evaluate(small_config, tmp_path / "unbroken")
    assert [r["lr"] for r in records(tmp_path / "unbroken")] == pytest.approx([1e-3, 1e-4, 1e-5])
    stop_after(monkeypatch, 24)
    with pytest.raises(SystemExit):
        train.train_and_evaluate(small_config, tmp_path / "run")
    resumed = train.train_and_evaluate(small_config, tmp_path / "run")
    assert records(tmp_path / "run") == records(tmp_path / "unbroken")
    assert resumed["test_loss"] == unbroken["test_loss"]


def test_extending_a_finished_run_reports_the_learning_rate_change(small_config, tmp_path, capsys):
    small_config.schedule.name = "cosine"
    small_config.schedule.gamma = 0.5
    small_config.num_epochs = 1
    short = train.train_and_evaluate(small_config, tmp_path / "run")
    assert (
        "ignored with optimizer 'sgd' and schedule 'cosine': schedule.gamma"
        in capsys.readouterr().out
    )
    small_config.num_epochs = 2
    grown = train.train_and_evaluate(small_config, tmp_path / "run")
    output = capsys.readouterr().out
    assert "the schedule now spans 2 epochs instead of 1" in output
    assert "learning rate changes from 0 to 0.005" in output
    assert grown["wall_seconds"] > short["wall_seconds"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == grown
    assert [r["lr"] for r in records(tmp_path / "run")] == [0.0, 0.0]


def test_extended_run_that_is_stopped_is_not_finished(small_config, tmp_path, monkeypatch):
    small_config.num_epochs = 1
    train.train_and_evaluate(small_config, tmp_path / "run")
    small_config.num_epochs = 2
    stop_after(monkeypatch, 3)
    with pytest.raises(SystemExit):
        train.train_and_evaluate(small_config, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_early_stopped_run_is_finished(small_config, tmp_path, capsys):
    small_config.optimizer.lr = 1e-12  # nothing is learned: the first epoch stays the best
    small_config.num_epochs = 20
    small_config.early_stopping.patience = 1
    summary = train.train_and_evaluate(small_config, tmp_path / "run")
    assert summary["best_epoch"] == 1
    assert len(records(tmp_path / "run")) == 2
    assert "stopped early" in capsys.readouterr().out
    assert train.train_and_evaluate(small_config, tmp_path / "run") == summary
    small_config.early_stopping.patience = 2
    train.train_and_evaluate(small_config, tmp_path / "run")
    assert len(records(tmp_path / "run")) == 3


def test_changed_data_raises(small_config, image_folder, tmp_path):
    small_config.num_epochs = 1
    small_config.data.name = "folder"
    small_config.data.dir = str(image_folder)
    train.train_and_evaluate(small_config, tmp_path / "run")
    (image_folder / "train" / "dark" / "00.png").unlink()
    small_config.num_epochs = 2
    with pytest.raises(ConfigError, match="differ from those of the run"):
        train.train_and_evaluate(small_config, tmp_path / "run")


def test_divergence_raises_diverged_error(small_config, tmp_path):
    small_config.optimizer.lr = 1e6
    with pytest.raises(train.DivergedError, match=r"learning rate 1e\+06"):
        train.train_and_evaluate(small_config, tmp_path / "run")


def test_training_works_outside_the_main_thread(small_config, tmp_path):
    small_config.num_epochs = 1
    summaries = []
    thread = threading.Thread(
        target=lambda: summaries.append(train.train_and_evaluate(small_config, tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert summaries
