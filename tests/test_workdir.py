import json

import pytest

from jaxcifar import workdir
from jaxcifar.config import ConfigError


def test_claim_writes_the_config_and_refuses_another(small_config, tmp_path):
    workdir.claim(small_config, tmp_path / "run")
    workdir.claim(small_config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"] == 50
    (tmp_path / "run" / "checkpoints").mkdir()
    small_config.optimizer.lr = 0.5
    with pytest.raises(ConfigError, match=r"optimizer\.lr: the run has 0\.01, you asked for 0\.5"):
        workdir.claim(small_config, tmp_path / "run")


def test_unusable_directories_are_refused(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        workdir.claim(small_config, tmp_path / "file")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        workdir.claim(small_config, tmp_path / "run")


def test_move_aside_keeps_every_old_run(tmp_path):
    run = tmp_path / "run"
    assert workdir.move_aside(run) is None
    for number in (1, 2):
        run.mkdir()
        assert workdir.move_aside(run) == tmp_path / f"run.old-{number}"
    assert not run.exists()


def test_a_run_that_never_began_gives_way(small_config, tmp_path):
    workdir.claim(small_config, tmp_path / "run")
    small_config.optimizer.lr = 0.5
    workdir.claim(small_config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optimizer"]["lr"] == 0.5


def test_is_finished(small_config):
    assert workdir.is_finished(small_config, epoch=3, best_epoch=3)
    assert not workdir.is_finished(small_config, epoch=2, best_epoch=1)
    small_config.num_epochs, small_config.early_stopping.patience = 50, 2
    assert not workdir.is_finished(small_config, epoch=2, best_epoch=1)
    assert workdir.is_finished(small_config, epoch=3, best_epoch=1)
