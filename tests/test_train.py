import json
import math
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from jaxcifar import data, optimizers, parallel, train
from jaxcifar.config import ConfigError
from jaxcifar.rng import Stream, stream


def losses(workdir):
    """The records of a run without its timings."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    timings = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in timings} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run left alone, for others to be compared with: (its workdir, its summary)."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def alone(finished, small_config):
    return finished, train.train_and_evaluate(small_config, finished)


def test_a_run_leaves_what_the_contract_says(alone, small_config):
    workdir, summary = alone
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


def test_a_finished_run_is_returned_and_not_repeated(alone, small_config):
    workdir, summary = alone
    before = (workdir / "metrics.jsonl").stat().st_mtime_ns
    assert train.train_and_evaluate(small_config, workdir) == summary
    assert (workdir / "metrics.jsonl").stat().st_mtime_ns == before


def test_the_same_config_gives_the_same_bits(alone, small_config, tmp_path):
    again = train.train_and_evaluate(small_config, tmp_path / "again")
    assert losses(tmp_path / "again") == losses(alone[0])
    assert again["test_loss"] == alone[1]["test_loss"]


@pytest.mark.parametrize("after", [1, 4, 10, 17])
def test_stopped_and_resumed_gives_the_same_bits(alone, small_config, tmp_path, monkeypatch, after):
    """Stops after that many device calls, the ends of epochs and their middles among them."""
    made = []
    plan = train.plan

    def stopping_plan(*arguments):
        for call in plan(*arguments):
            made.append(call)
            if len(made) == after:
                os.kill(os.getpid(), signal.SIGTERM)
            yield call

    monkeypatch.setattr(train, "plan", stopping_plan)
    with pytest.raises(SystemExit) as caught:
        train.train_and_evaluate(small_config, tmp_path / "run")
    assert caught.value.code == 143
    assert len(losses(tmp_path / "run")) == after // 10
    monkeypatch.setattr(train, "plan", plan)
    resumed = train.train_and_evaluate(small_config, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(alone[0])
    assert resumed["test_loss"] == alone[1]["test_loss"]


def test_an_unfinished_run_may_grow(alone, small_config, tmp_path):
    small_config.num_epochs = 1
    train.train_and_evaluate(small_config, tmp_path / "run")
    small_config.num_epochs = 3
    train.train_and_evaluate(small_config, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(alone[0])


def test_other_data_is_refused(small_config, image_folder, tmp_path):
    small_config.num_epochs = 1
    small_config.data.name = "folder"
    small_config.data.dir = str(image_folder)
    train.train_and_evaluate(small_config, tmp_path / "run")
    (image_folder / "train" / "dark" / "00.png").unlink()
    small_config.num_epochs = 2
    with pytest.raises(ConfigError, match="not those of the run"):
        train.train_and_evaluate(small_config, tmp_path / "run")


def test_divergence_is_an_error_of_its_own(small_config, tmp_path):
    small_config.optimizer.lr = 1e6
    with pytest.raises(train.DivergedError, match=r"learning rate 1e\+06"):
        train.train_and_evaluate(small_config, tmp_path / "run")


def test_training_works_outside_the_main_thread(small_config, tmp_path):
    small_config.num_epochs = 1
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train.train_and_evaluate(small_config, tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert done


@pytest.mark.parametrize(
    ("num_images", "steps_per_call", "index"), [(480, 1, 0), (480, 4, 0), (450, 4, 0), (480, 4, 8)]
)
def test_plan_covers_every_image_once(num_images, steps_per_call, index):
    calls = list(train.plan(num_images, 50, steps_per_call, index))
    assert sum(steps * size for _, steps, size in calls) == num_images - index * 50
    assert [call[0] for call in calls] == list(
        np.cumsum([index] + [steps for _, steps, _ in calls[:-1]])
    )
    assert sum(steps for _, steps, _ in calls) == math.ceil(num_images / 50) - index


def train_steps(config, steps_per_call, num_steps=4):
    """Returns the state after some steps, and the sums of their metrics."""
    mesh = parallel.setup(config)
    part = data.load(config).train
    optimizer = optimizers.create(config)
    network, state = train.init_state(config, optimizer, 100, mesh)
    call = train.make_train_call(network, optimizer, config, mesh)
    images, labels = jax.device_put((part.images, part.labels), parallel.replicated(mesh))
    order = jax.random.permutation(stream(0, Stream.SHUFFLE), len(part))
    lrs = np.linspace(0.1, 0.01, 10, dtype=np.float32)
    loss = 0.0
    for index in range(0, num_steps, steps_per_call):
        state, sums = call(
            state,
            images,
            labels,
            order,
            lrs,
            stream(config.seed, Stream.STEP),
            index,
            steps=steps_per_call,
            batch_size=config.batch_size,
        )
        loss += float(sums["loss"])
    return state, loss


def test_steps_per_call_changes_rounding_only(small_config):
    """Dropout, order and learning rates are the same; float32 rounding is all that differs."""
    (one, loss_one), (four, loss_four) = (train_steps(small_config, n) for n in (1, 4))
    assert int(one.step) == int(four.step) == 4
    assert loss_one == pytest.approx(loss_four, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.params, four.params)


def test_gradients_by_layer(small_config):
    mesh = parallel.setup(small_config)
    part = data.load(small_config).train
    network, state = train.init_state(small_config, optimizers.create(small_config), 100, mesh)
    found = train.make_gradients(network, small_config, mesh)(state, part.images, part.labels)
    assert found["conv1.kernel"].shape == (3, 3, 3, 4)
    assert abs(found["fc2.bias"]).max() > 0


def test_second_signal_acts_at_once():
    with train._stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
