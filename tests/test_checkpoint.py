import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcifar import checkpoint, models
from jaxcifar.checkpoint import Checkpoints
from jaxcifar.models import functional
from jaxcifar.progress import Progress
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    yield checkpoints
    checkpoints.close()


def state(value):
    return {"w": jnp.full((3,), value), "blocks": {0: {"b": jnp.float32(value)}}}


def progress_at(epoch):
    return Progress("fingerprint", 100, epoch=epoch)


def test_nothing_to_restore(checkpoints):
    assert checkpoints.restore_last(state(0)) is None


def test_last_and_best(checkpoints, tmp_path):
    for step in (10, 20, 30):
        checkpoints.save_last(step, state(step), progress_at(step))
    checkpoints.save_best(20, {"w": jnp.ones(3)}, progress_at(2))
    restored, progress = checkpoints.restore_last(state(0))
    np.testing.assert_array_equal(restored["w"], 30)
    np.testing.assert_array_equal(restored["blocks"][0]["b"], 30)
    assert progress == progress_at(30)
    assert checkpoints.restore_best({"w": jnp.zeros(3)})[1] == progress_at(2)
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["20", "30"]


def test_saving_a_step_again_replaces_it(checkpoints):
    checkpoints.save_best(5, state(1), progress_at(1))
    checkpoints.save_best(5, state(2), progress_at(1))
    np.testing.assert_array_equal(checkpoints.restore_best(state(0))[0]["w"], 2)


def empty_files(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def test_damaged_checkpoints_raise_instead_of_restarting(tmp_path):
    first = Checkpoints(tmp_path, keep=2)
    first.save_last(1, state(1), progress_at(1))
    first.close()
    empty_files(tmp_path / "last" / "1" / "state")
    second = Checkpoints(tmp_path, keep=2)
    with pytest.raises(ConfigError, match="no `last` checkpoint of the run"):
        second.restore_last(state(0))
    second.close()


def test_damaged_newest_falls_back_to_the_previous_one(tmp_path, capsys):
    first = Checkpoints(tmp_path, keep=2)
    first.save_last(1, state(1), progress_at(1))
    first.save_last(2, state(2), progress_at(2))
    first.close()
    empty_files(tmp_path / "last" / "2" / "state")
    (tmp_path / "last" / "3.orbax-checkpoint-tmp").mkdir()  # a save cut short
    second = Checkpoints(tmp_path, keep=2)
    restored, progress = second.restore_last(state(0))
    second.close()
    assert progress == progress_at(1)
    np.testing.assert_array_equal(restored["w"], 1)
    assert "step 2 cannot be read" in capsys.readouterr().out


def test_unregistered_model_raises_with_its_config_file(small_config, tmp_path):
    run = Run.claim(small_config, tmp_path)
    text = (tmp_path / "config.json").read_text()
    text = text.replace('"simple_cnn"', '"my_net"').replace('_file": ""', '_file": "mine.py"')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        ConfigError, match=r"unknown model 'my_net': .*'mine\.py' registers it"
    ) as caught:
        checkpoint.load_model(run.directory)
    assert caught.value.command_hint == "--config=mine.py"


def test_load_model_infers_the_number_of_classes(small_config, tmp_path):
    model = nnx.eval_shape(
        lambda: models.create("simple_cnn", num_classes=7, rngs=nnx.Rngs(0), width=4)
    )
    _, *arrays = functional.split(model)
    params, stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), arrays)
    Run.claim(small_config, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save_best(1, {"params": params, "stats": stats}, Progress("fingerprint", 1))
    checkpoints.close()
    model, _ = checkpoint.load_model(tmp_path)
    assert model.fc2.bias.shape == (7,)
