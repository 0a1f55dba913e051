import json

import pytest

from jaxcifar.run import Run
from jaxcifar.spec import ConfigError


def test_claim_writes_the_config_and_rejects_another(small_config, tmp_path):
    Run.claim(small_config, tmp_path / "run")
    Run.claim(small_config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"] == 50
    (tmp_path / "run" / "checkpoints").mkdir()
    small_config.optimizer.lr = 0.5
    with pytest.raises(ConfigError, match=r"optimizer\.lr: the run has 0\.01, you asked for 0\.5"):
        Run.claim(small_config, tmp_path / "run")


def test_invalid_config_claims_nothing(small_config, tmp_path):
    small_config.batch_size = 0
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="batch_size=0"):
        Run.claim(small_config, tmp_path / "run", fresh=True)
    assert not list((tmp_path / "run").iterdir())
    assert not (tmp_path / "run.old-1").exists()


def test_unusable_directories_raise(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Run.claim(small_config, tmp_path / "file")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        Run.claim(small_config, tmp_path / "run")


def test_fresh_keeps_every_old_run(small_config, tmp_path):
    assert Run.claim(small_config, tmp_path / "run", fresh=True).moved_to is None
    for index in (1, 2):
        run = Run.claim(small_config, tmp_path / "run", fresh=True)
        assert run.moved_to == tmp_path / f"run.old-{index}"
        assert (run.moved_to / "config.json").exists()


def test_unstarted_run_is_overwritten(small_config, tmp_path):
    Run.claim(small_config, tmp_path / "run")
    small_config.optimizer.lr = 0.5
    Run.claim(small_config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optimizer"]["lr"] == 0.5


def test_messages_from_python_do_not_mention_flags(small_config, tmp_path):
    Run.claim(small_config, tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    small_config.seed = 1
    with pytest.raises(ConfigError) as caught:
        Run.claim(small_config, tmp_path / "run")
    assert "--" not in str(caught.value)
    assert "--fresh" in caught.value.command_hint


def test_resuming_drops_records_of_repeated_epochs(small_config, tmp_path):
    run = Run.claim(small_config, tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n{"epo')
    run.drop_records_after(2)
    assert run.records() == [{"epoch": 1}, {"epoch": 2}]
    run.add_record({"epoch": 3})
    assert len(run.records()) == 3


def test_finished_run_has_a_summary_and_all_its_epochs(small_config, tmp_path):
    run = Run.claim(small_config, tmp_path)
    for epoch in (1, 2, 3):
        assert run.finished_summary() is None
        run.add_record({"epoch": epoch, "val_acc": 50.0})
    assert run.finished_summary() is None
    run.write_summary({"test_acc": 51.0})
    assert run.finished_summary() == {"test_acc": 51.0}
    run.remove_summary()
    assert run.finished_summary() is None
