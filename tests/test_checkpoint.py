import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcifar import checkpoint, checkpoint_files, models
from jaxcifar.checkpoint import Checkpoints
from jaxcifar.models import functional
from jaxcifar.progress import Progress
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError
from jaxcifar.step import TrainState


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, keep=2, check_owner=lambda: None)


def state_of(value):
    params = {"w": jnp.full((3,), value), "blocks": {0: {"b": jnp.float32(value)}}}
    return TrainState(jnp.int32(value), params, {}, ())


def progress_of(*best_steps):
    records = [{"epoch": i, "step": s, "val_acc": i} for i, s in enumerate(best_steps, 1)]
    return Progress({}, ["a"], "digest", records)


def template():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_of(0)
    )


def saved(tmp_path):
    return {which: checkpoint_files.steps(tmp_path / which)[::-1] for which in ("last", "best")}


def test_saves_restores_and_keeps_what_is_referred_to(checkpoints, tmp_path):
    for step in (10, 20, 30):
        progress = progress_of(10, 20) if step > 10 else progress_of(10)
        if step < 30:
            checkpoints.keep_best(step, state_of(step).model)
        checkpoints.save(step, state_of(step), progress)
        checkpoints.wait()
    assert saved(tmp_path) == {"last": [20, 30], "best": [20]}
    again = Checkpoints(tmp_path, keep=2, check_owner=lambda: None)
    state = again.restore_last(tmp_path / "last" / "30", template(), progress)
    jax.tree.map(np.testing.assert_array_equal, state, state_of(30))
    best = again.best_model(template(), progress)
    np.testing.assert_array_equal(best["params"]["w"], 20)


def test_best_is_taken_from_memory(checkpoints, tmp_path):
    checkpoints.keep_best(10, state_of(10).model)
    checkpoints.save(10, state_of(10), progress_of(10))
    checkpoints.wait()
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(checkpoints.best_model(None, progress_of(10))["params"]["w"], 10)


def test_best_is_saved_with_the_next_state(checkpoints, tmp_path):
    checkpoints.keep_best(10, state_of(10).model)
    checkpoints.save(10, state_of(10), progress_of(10))
    checkpoints.wait()
    for step in (20, 30):
        checkpoints.keep_best(step, state_of(step).model)
    checkpoints.wait()
    assert saved(tmp_path) == {"last": [10], "best": [10]}
    checkpoints.save(40, state_of(40), progress_of(10, 20, 30))
    checkpoints.wait()
    assert saved(tmp_path) == {"last": [10, 40], "best": [10, 30]}


def test_best_of_an_epoch_that_is_trained_again_is_removed(checkpoints, tmp_path):
    """A best that was saved, but not the `last` after it."""
    checkpoints.keep_best(10, state_of(10).model)
    checkpoints.save(10, state_of(10), progress_of(10))
    checkpoints.wait()
    shutil.copytree(tmp_path / "best" / "10", tmp_path / "best" / "20")
    again = Checkpoints(tmp_path, keep=2, check_owner=lambda: None)
    again.restore_last(tmp_path / "last" / "10", template(), progress_of(10))
    assert saved(tmp_path) == {"last": [10], "best": [10]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda best: shutil.rmtree(best.parent),
        shutil.rmtree,
        lambda best: (best / "manifest.json").unlink(),
        lambda best: (best / "state" / "_METADATA").write_bytes(b""),
        lambda best: best.rename(best.with_name("99999")),
    ],
)
def test_damaged_best(checkpoints, tmp_path, damage, capsys):
    checkpoints.keep_best(10, state_of(10).model)
    checkpoints.save(10, state_of(10), progress_of(10))
    checkpoints.wait()
    damage(tmp_path / "best" / "10")
    again = Checkpoints(tmp_path, keep=2, check_owner=lambda: None)
    again.restore_last(tmp_path / "last" / "10", template(), progress_of(10))
    assert "it is restored from" in capsys.readouterr().out
    np.testing.assert_array_equal(again.best_model(template(), progress_of(10))["params"]["w"], 10)

    again.save(20, state_of(20), progress_of(10))
    again.wait()
    damage(tmp_path / "best" / "10")
    with pytest.raises(ConfigError, match=r"best checkpoint .* is (damaged|missing)"):
        again.restore_last(tmp_path / "last" / "20", template(), progress_of(10))


def test_other_state_raises(checkpoints, tmp_path):
    checkpoints.save(10, state_of(10), progress_of(10))
    checkpoints.wait()
    other = template()._replace(params={"w": template().params["w"]})
    with pytest.raises(ConfigError, match=r"does not fit this run, in params\.blocks\.0\.b; the"):
        checkpoints.restore_last(tmp_path / "last" / "10", other, progress_of())


def test_failed_save_is_reported_and_leaves_nothing(checkpoints, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(checkpoint.array_files, "write", fail)
    checkpoints.save(10, state_of(10), progress_of(10))
    with pytest.raises(OSError, match="no space"):
        checkpoints.wait()
    assert list((tmp_path / "last").iterdir()) == []


@pytest.fixture
def model_run(small_config, tmp_path, add_checkpoint):
    """The work directory of a run with a checkpoint of a network of two classes."""
    model = nnx.eval_shape(
        lambda: models.create("simple_cnn", num_classes=2, rngs=nnx.Rngs(0), width=4)
    )
    _, *arrays = functional.split(model)
    params, stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), arrays)
    with Run.claim(small_config, tmp_path / "run") as run:
        for epoch in (1, 2):
            add_checkpoint(run, epoch, TrainState(jnp.int32(0), params, stats, ()))
    return run.directory


def test_load_model_knows_its_classes_and_config(model_run, small_config):
    (model_run / "config.json").write_text('{"model": {"width": 9}}')  # only a copy
    for which in ("best", "last", 20):
        model, config = checkpoint.load_model(model_run, which)
        assert model.fc2.bias.shape == (2,)
        assert model.class_names == ("a", "b")
        assert config == small_config


def test_load_model_takes_averaged_parameters(model_run, small_config, add_checkpoint):
    model, _ = checkpoint.load_model(model_run)
    _, params, stats = functional.split(model)
    ema = jax.tree.map(lambda leaf: leaf + 1, params)
    with Run.claim(small_config, model_run) as run:
        add_checkpoint(run, 3, TrainState(jnp.int32(0), params, stats, (), ema))
    for which in ("best", "last"):
        model, _ = checkpoint.load_model(model_run, which)
        np.testing.assert_array_equal(model.fc2.bias[...], 1)


def test_load_model_moves_nothing(model_run, capsys):
    newest = model_run / "checkpoints" / "last" / "20"
    (newest / "progress.json").write_text("{}")
    checkpoint.load_model(model_run, "last")
    assert "20 is damaged: using the one before" in capsys.readouterr().out
    assert newest.exists()


def test_load_model_takes_the_newest_again_where_it_was_removed(model_run, monkeypatch):
    """As the run does when it goes on."""
    newest = model_run / "checkpoints" / "last" / "20"
    read = checkpoint_files.read_progress

    def read_late(path):
        if path == newest and newest.exists():
            shutil.rmtree(newest)
        return read(path)

    monkeypatch.setattr(checkpoint_files, "read_progress", read_late)
    checkpoint.load_model(model_run, "last")
    assert not newest.exists()


def test_load_model_without_a_checkpoint_raises(small_config, tmp_path):
    with Run.claim(small_config, tmp_path / "run"):
        pass
    for directory in (tmp_path / "run", tmp_path / "nothing"):
        with pytest.raises(ConfigError, match="not the work directory of a run with a checkpoint"):
            checkpoint.load_model(directory)


def test_unregistered_model_raises_with_its_config_file(model_run, small_config, add_checkpoint):
    small_config.config_file = "mine.py"
    with Run.claim(small_config, model_run) as run:
        run.config.model.name = "my_net"
        add_checkpoint(run, 3)
    with pytest.raises(ConfigError, match=r"'my_net': .* to a command: --config=mine\.py"):
        checkpoint.load_model(model_run)


def test_load_model_refuses_another_best(model_run):
    (model_run / "checkpoints" / "best" / "20" / "progress.json").unlink()
    assert (model_run / "checkpoints" / "best" / "10").exists()
    with pytest.raises(ConfigError, match="20' is damaged; choose another, or resume the run"):
        checkpoint.load_model(model_run)
    checkpoint.load_model(model_run, 20)  # that of `last`
    with pytest.raises(
        ConfigError, match=r"no checkpoint 7; available: best, last, steps \[10, 20\]"
    ):
        checkpoint.load_model(model_run, 7)


def test_damaged_older_checkpoint_is_set_aside(checkpoints, tmp_path, capsys):
    for step in (10, 20):
        checkpoints.keep_best(10, state_of(10).model)
        checkpoints.save(step, state_of(step), progress_of(10))
        checkpoints.wait()
    (tmp_path / "last" / "10" / "progress.json").write_text("{")
    again = Checkpoints(tmp_path, keep=2, check_owner=lambda: None)
    again.restore_last(tmp_path / "last" / "20", template(), progress_of(10))
    assert "the older checkpoint" in capsys.readouterr().out
    assert saved(tmp_path) == {"last": [20], "best": [10]}


def test_errors_of_the_run_are_not_replaced_by_those_of_a_save(checkpoints, monkeypatch, capsys):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(checkpoint.array_files, "write", fail)
    with pytest.raises(ZeroDivisionError), checkpoints:
        checkpoints.save(10, state_of(10), progress_of(10))
        raise ZeroDivisionError
    assert "the state was not saved: no space" in capsys.readouterr().out
    with pytest.raises(OSError, match="no space"), checkpoints:
        checkpoints.save(20, state_of(20), progress_of(10))
