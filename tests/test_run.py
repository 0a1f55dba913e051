import json

import pytest

from jaxcifar.run import Run
from jaxcifar.spec import ConfigError


@pytest.fixture
def claim(small_config, tmp_path):
    """Claims tmp_path/run: fn(fresh=False) -> run, whose lock is released at the end."""
    runs = []

    def claim(**arguments):
        for run in runs:
            run.lock.release()
        runs.clear()
        runs.append(Run.claim(small_config, tmp_path / "run", **arguments))
        return runs[0]

    yield claim
    for run in runs:
        run.lock.release()


def test_invalid_config_claims_nothing(small_config, tmp_path):
    small_config.batch_size = 0
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="batch_size=0"):
        Run.claim(small_config, tmp_path / "run", fresh=True)
    assert not list((tmp_path / "run").iterdir())
    assert not (tmp_path / "run.old-1").exists()


@pytest.mark.parametrize("name", ["file", "x" * 300, "file/run", "a\0b"])
def test_unusable_directories_raise(small_config, tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Run.claim(small_config, tmp_path / name)


def test_second_owner_is_refused_whether_fresh_or_not(small_config, tmp_path, claim):
    claim()
    for fresh in (False, True):
        with pytest.raises(ConfigError, match=r"^the work directory .* is in use by process"):
            Run.claim(small_config, tmp_path / "run", fresh=fresh)


def test_fresh_keeps_every_old_run(tmp_path, claim):
    assert claim(fresh=True).moved_to is None
    for index in (1, 2):
        (tmp_path / "run" / "config.json").write_text("{}")
        run = claim(fresh=True)
        assert run.moved_to == tmp_path / f"run.old-{index}"
        assert (run.moved_to / "config.json").exists()
        assert (run.moved_to / "lock").read_text() == ""


def test_unstarted_run_is_overwritten(claim, small_config):
    claim()
    small_config.optimizer.lr = 0.5
    assert claim().progress is None


def test_other_config_raises_whatever_config_json_says(claim, small_config, add_checkpoint):
    run = claim()
    add_checkpoint(run, 1)
    small_config.optimizer.lr = 0.5
    for text in (None, "{", json.dumps(small_config.to_dict())):
        if text:
            (run.directory / "config.json").write_text(text)
        with pytest.raises(
            ConfigError, match=r"optimizer\.lr: the run has 0\.01, you asked for 0\.5"
        ) as caught:
            claim()
        assert "--" not in str(caught.value)
        assert "--fresh" in caught.value.command_hint


@pytest.mark.parametrize("name", ["config.json", "classes.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [None, b"", b'{"epoch": 1}\n' * 2, b'{"a', b"\xff\xfe", b"[]"])
def test_damaged_copies_are_written_again(claim, add_checkpoint, capsys, name, content):
    run = claim()
    add_checkpoint(run, 2)
    run = claim()
    path = run.directory / name
    intact = path.read_bytes()
    capsys.readouterr()
    claim()
    assert capsys.readouterr().out == ""
    path.unlink() if content is None else path.write_bytes(content)
    claim()
    assert path.read_bytes() == intact
    assert f"{path} differed from the run's record" in capsys.readouterr().out


def test_records_of_epochs_after_the_checkpoint_are_dropped(claim, add_checkpoint, capsys):
    run = claim()
    add_checkpoint(run, 2)
    run = claim()
    run.add_record({"epoch": 3})
    capsys.readouterr()
    run = claim()
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert capsys.readouterr().out == ""


def test_summary_counts_only_if_it_fits_the_record(claim, add_checkpoint):
    run = claim()
    add_checkpoint(run, 3)
    run = claim()
    assert run.finished_summary() is None
    summary = {"best_epoch": 3, "best_val_acc": 53.0, "test_acc": 51.0, "test_loss": 1.0}
    run.write_summary(summary, {})
    assert run.finished_summary() == summary
    path = run.directory / "summary.json"
    for text in (
        "",
        "{",
        "[]",
        "null",
        json.dumps(summary | {"best_epoch": 2}),
        '{"best_epoch": 3}',
    ):
        path.write_text(text)
        assert run.finished_summary() is None
    run.write_summary(summary, {})
    run.config.num_epochs = 4
    assert claim().finished_summary() is None
    run.remove_summary()
    assert not path.exists()


def test_unforeseen_error_is_logged_and_others_are_not(claim):
    run = claim()
    with pytest.raises(ConfigError), run:
        raise ConfigError("plain")
    assert not (run.directory / "error.log").exists()
    with pytest.raises(ZeroDivisionError), claim() as run:
        raise ZeroDivisionError("a bug")
    assert "ZeroDivisionError: a bug" in (run.directory / "error.log").read_text()


def test_directory_of_a_sweep_is_refused(small_config, tmp_path):
    (tmp_path / "study.db").touch()
    with pytest.raises(ConfigError, match="holds a sweep; choose another work directory"):
        Run.claim(small_config, tmp_path)
