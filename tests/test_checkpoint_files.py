import pytest

from jaxcifar import checkpoint_files, manifest
from jaxcifar.spec import ConfigError


@pytest.fixture
def last(tmp_path):
    """A directory of three checkpoints."""
    directory = tmp_path / "last"
    for step in (9, 10, 200):
        partial = directory / f"{step}.partial"
        partial.mkdir(parents=True)
        (partial / "progress.json").write_text("{}")
        checkpoint_files.commit(partial, directory / str(step))
    return directory


def test_steps_are_the_decimal_names(last, tmp_path):
    for name in ("007", "x", "²", "-1", "300.partial"):
        (last / name).mkdir()
    assert checkpoint_files.steps(last) == [200, 10, 9]
    assert checkpoint_files.steps(tmp_path / "nothing") == []


def test_unfinished_and_damaged_ones_are_passed_over(last, capsys):
    assert checkpoint_files.find_newest(last) == last / "200"
    (last / "99999").mkdir()
    (last / "200" / "progress.json").write_text("[]")
    assert checkpoint_files.find_newest(last) == last / "10"
    out = capsys.readouterr().out
    assert f"{last / '99999'} has no manifest: skipped" in out
    assert f"{last / '200'} is damaged: using the one before" in out
    assert (last / "200").exists()
    assert checkpoint_files.find_newest(last, set_aside=True) == last / "10"
    assert not (last / "200").exists()
    assert manifest.check(last.parent / "damaged" / "last-200-1") == "damaged"


def test_nothing_is_moved_where_none_is_intact(last):
    for step in (9, 10, 200):
        (last / str(step) / "progress.json").unlink()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"is intact: 200 .damaged., 10 .damaged., 9"):
            checkpoint_files.find_newest(last, set_aside=True)


def test_progress_of_another_version_raises(last):
    with pytest.raises(ConfigError, match="another version may have written it"):
        checkpoint_files.read_progress(last / "200")


def test_only_checkpoint_without_a_manifest_is_not_ignored(last):
    for step in (9, 10):
        checkpoint_files.remove(last / str(step))
    (last / "200" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"200 \(unfinished\)"):
        checkpoint_files.find_newest(last)


def test_interrupted_saves_are_completed_or_removed(tmp_path, last):
    workdir = tmp_path / "run"
    (workdir / "checkpoints").mkdir(parents=True)
    last = last.rename(workdir / "checkpoints" / "last")
    (last / "300.partial" / "state").mkdir(parents=True)
    (last / "200").rename(last / "200.partial")  # killed just before it was put in place
    (last / "10").rename(last / "10.partial")
    (last / "10.partial" / "progress.json").write_text("cut")
    (workdir / "config.json.7.partial").touch()
    checkpoint_files.clean_up(workdir)
    assert sorted(path.name for path in last.iterdir()) == ["200", "9"]
    assert checkpoint_files.find_newest(last) == last / "200"
    assert sorted(path.name for path in workdir.iterdir()) == ["checkpoints"]


def test_list_that_changes_meanwhile_is_read_again(last, monkeypatch):
    """As where the run saves a checkpoint and removes those that a reader is about to check."""
    check = manifest.check

    def check_late(path):
        if path.name == "200" and not (last / "300").exists():
            (last / "200").rename(last / "300")
            for step in (9, 10):
                checkpoint_files.remove(last / str(step))
        return check(path)

    monkeypatch.setattr(manifest, "check", check_late)
    assert checkpoint_files.find_newest(last) == last / "300"
