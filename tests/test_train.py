import dataclasses
import json
import os
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcifar import checkpoint, checkpoint_files, data, parallel, program, step, train
from jaxcifar.progress import Progress
from jaxcifar.run_schedule import RunSchedule
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


@pytest.fixture
def copy_of_finished(uninterrupted_run, tmp_path):
    """A work directory that holds the same."""
    return shutil.copytree(uninterrupted_run[0], tmp_path / "run")


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
    train_epoch = program.Program.train_epoch

    def stopping_epoch(*arguments):
        for call in train_epoch(*arguments):
            calls.append(call.step_in_epoch)
            if len(calls) == num_calls:
                os.kill(os.getpid(), signal.SIGTERM)
            yield call

    monkeypatch.setattr(program.Program, "train_epoch", stopping_epoch)


@pytest.mark.parametrize("after", [4, 10])
def test_stopped_and_resumed_run_is_bit_identical(
    uninterrupted_run, small_config, tmp_path, monkeypatch, after
):
    """Stops after that many device calls, in the first epoch and at its end; in the third epoch
    `test_plateau_and_ema_survive_a_restart` does.
    """
    stop_after(monkeypatch, after)
    with pytest.raises(SystemExit) as caught:
        train.train_and_evaluate(small_config, tmp_path / "run")
    assert caught.value.code == 143
    assert len(records(tmp_path / "run")) == (after - 1) // 10
    resumed = train.train_and_evaluate(small_config, tmp_path / "run")
    assert records(tmp_path / "run") == records(uninterrupted_run[0])
    assert resumed["test_loss"] == uninterrupted_run[1]["test_loss"]


def test_extended_run_holds_the_last_value_of_its_plan(small_config, tmp_path):
    small_config.schedule.name, small_config.schedule.interval = "cosine", "step"
    small_config.num_epochs = 1
    train.train_and_evaluate(small_config, tmp_path)
    last = RunSchedule(small_config, 10).lr(0, 9)
    small_config.schedule.extend = "hold"
    for num_epochs in (2, 3):
        small_config.num_epochs = num_epochs
        train.train_and_evaluate(small_config, tmp_path)
    assert [record["lr"] for record in records(tmp_path)][1:] == [last] * 2
    small_config.schedule.extend = "respan"
    small_config.num_epochs = 4
    train.train_and_evaluate(small_config, tmp_path)
    assert records(tmp_path)[-1]["lr"] == 0


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


def test_extended_run_that_is_stopped_is_not_finished(copy_of_finished, small_config, monkeypatch):
    small_config.num_epochs = 4
    stop_after(monkeypatch, 3)
    with pytest.raises(SystemExit):
        train.train_and_evaluate(small_config, copy_of_finished)
    assert not (copy_of_finished / "summary.json").exists()


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


def test_changed_data_raises(copy_of_finished, small_config, monkeypatch):
    small_config.num_epochs = 4
    splits = data.load(small_config)
    images = splits.train.images.copy()
    images[7, 0, 0, 0] ^= 1
    changed = splits._replace(train=dataclasses.replace(splits.train, images=images))
    monkeypatch.setattr(data, "split", lambda *_: changed)
    with pytest.raises(ConfigError, match="differ from those of the run"):
        train.train_and_evaluate(small_config, copy_of_finished)


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


def test_saves_within_an_epoch_change_nothing(uninterrupted_run, small_config, tmp_path):
    small_config.checkpoint.every_steps = 4
    small_config.checkpoint.keep = 100
    summary = train.train_and_evaluate(small_config, tmp_path / "run")
    assert records(tmp_path / "run") == records(uninterrupted_run[0])
    assert summary["test_loss"] == uninterrupted_run[1]["test_loss"]
    saved = {int(path.name) for path in (tmp_path / "run" / "checkpoints" / "last").iterdir()}
    # Saves that were overtaken while the disk was busy are missing, but never the last.
    assert saved <= {4, 8, 10, 14, 18, 20, 24, 28, 30}
    assert 30 in saved


def test_epoch_is_logged_before_the_checkpoint_that_covers_it(small_config, tmp_path, monkeypatch):
    saved = []
    save = checkpoint.Checkpoints.save

    def recording_save(self, step, state, progress):
        saved.append((progress.epoch, len(records(tmp_path / "run"))))
        save(self, step, state, progress)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", recording_save)
    train.train_and_evaluate(small_config, tmp_path / "run")
    assert saved == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("limit", [3, 1000])
def test_skipped_steps_are_counted_and_limited(small_config, tmp_path, monkeypatch, limit):
    """A transform makes the images of some steps infinite."""
    small_config.num_epochs = 1
    small_config.optimizer.skip_nonfinite = limit
    make_prepare_batches = step.batches.make_prepare_batches

    def make_broken(*arguments):
        prepare = make_prepare_batches(*arguments)

        def broken(images, labels, keys):
            images, targets = prepare(images, labels, keys)
            is_broken = jax.random.uniform(keys[0]) < 0.7
            return jnp.where(is_broken, jnp.inf, images), targets

        return broken

    monkeypatch.setattr(step.batches, "make_prepare_batches", make_broken)
    if limit == 3:
        with pytest.raises(train.DivergedError, match="after 3 skipped steps in a row"):
            train.train_and_evaluate(small_config, tmp_path / "run")
        return
    train.train_and_evaluate(small_config, tmp_path / "run")
    assert 0 < records(tmp_path / "run")[0]["skipped_steps"] < 10


def test_parameters_that_are_not_finite_are_never_saved(small_config, tmp_path, monkeypatch):
    """The last good checkpoint stays, and the run says so with exit code 3."""
    small_config.num_epochs = 2
    snapshot = program.Program.snapshot

    def snapshot_of_broken(self, state):
        if int(state.step) > 10:
            state.params["fc2"]["bias"] = state.params["fc2"]["bias"] * np.nan
        return snapshot(self, state)

    monkeypatch.setattr(program.Program, "snapshot", snapshot_of_broken)
    with pytest.raises(train.DivergedError, match="statistics are nan in epoch 2"):
        train.train_and_evaluate(small_config, tmp_path / "run")
    last = checkpoint_files.find_newest(tmp_path / "run" / "checkpoints" / "last")
    assert last.name == "10"


@pytest.mark.parametrize(("saved_on", "resumed_on"), [(2, 1), (1, 2)])
def test_resumed_on_another_number_of_devices(small_config, tmp_path, saved_on, resumed_on):
    """The same batches and draws: one step agrees to float32 rounding of sums of 48 images."""
    splits = data.load(small_config)

    def make_program(num_devices):
        config = small_config.copy_and_resolve_references()
        config.parallel.cpu_devices = num_devices
        return program.Program(config, parallel.setup(config), splits)

    first, second = make_program(saved_on), make_program(resumed_on)
    assert (first.mesh.size, second.mesh.size) == (saved_on, resumed_on)
    values = RunSchedule(small_config, first.steps_per_epoch).epoch_values(0)
    calls = first.train_epoch(first.init(), 0, values)
    state = first.snapshot(next(calls).state)[0]
    progress = Progress({}, [], "")
    checkpoints = checkpoint.Checkpoints(tmp_path, 1, lambda: None)
    checkpoints.save(1, state, progress)
    checkpoints.wait()
    restored = checkpoints.restore_last(tmp_path / "last" / "1", second.abstract_state(), progress)
    assert len(restored.params["fc2"]["bias"].devices()) == resumed_on
    expected = next(first.train_epoch(state, 0, values, first_step=1)).state
    actual = next(second.train_epoch(restored, 0, values, first_step=1)).state
    np.testing.assert_array_equal(first.epoch_order(0), second.epoch_order(0))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        jax.tree.map(np.asarray, actual.params),
        jax.tree.map(np.asarray, expected.params),
    )
