import jax.numpy as jnp
import pytest

from jaxcifar import profiling
from jaxcifar.profiling import StepProfile
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError
from jaxcifar.train import train_run


def test_a_run_writes_a_trace(small_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(profiling, "NUM_STEPS", 3)
    small_config.num_epochs = 2
    with Run.claim(small_config, tmp_path / "run") as run:
        train_run(run, StepProfile(tmp_path / "new" / "trace"))
    assert f"profile written to {tmp_path / 'new' / 'trace'}" in capsys.readouterr().out
    assert len(list((tmp_path / "new" / "trace").rglob("*.xplane.pb"))) == 1


def test_an_unfinished_trace_is_written(tmp_path):
    profile = StepProfile(tmp_path)
    assert profile.count(5, jnp.zeros(1)) is None
    profile.count(52, jnp.zeros(1))
    profile.close()
    profile.close()
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_without_a_directory_nothing_happens():
    profile = StepProfile(None)
    assert [profile.count(20, None) for _ in range(3)] == [None] * 3
    profile.close()


def test_unwritable_directories_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        StepProfile(tmp_path / "file" / "trace")
