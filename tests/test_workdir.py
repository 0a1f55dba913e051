import json

import pytest

from jaxcifar import workdir
from jaxcifar.config import ConfigError


def test_claim_writes_the_config_and_refuses_another(small_config, tmp_path):
    workdir.claim(small_config, tmp_path / "run")
    workdir.claim(small_config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"] == 50
    small_config.optimizer.lr = 0.5
    with pytest.raises(ConfigError, match=r"optimizer\.lr: the run has 0\.01, you asked for 0\.5"):
        workdir.claim(small_config, tmp_path / "run")


def test_unusable_directories_are_refused(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        workdir.claim(small_config, tmp_path / "file")
    (tmp_path / "run").mkdir()
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
