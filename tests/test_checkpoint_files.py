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
    assert f"{last / '99999'} was not completed: passed over" in out
    assert f"{last / '200'} is damaged: using the one before" in out
    assert (last / "200").exists()
    assert checkpoint_files.find_newest(last, set_aside=True) == last / "10"
    assert not (last / "200").exists()
    assert manifest.check(last.parent / "damaged" / "last-200-1") == "damaged"


def test_nothing_is_moved_where_none_is_intact(last):
    for step in (9, 10, 200):
        (last / str(step) / "progress.json").unlink()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"no checkpoint in .* is intact: 200, 10, 9 damaged"):
            checkpoint_files.find_newest(last, set_aside=True)


def test_progress_of_another_version_raises(last):
    with pytest.raises(ConfigError, match="another version may have written it"):
        checkpoint_files.read_progress(last / "200")


def test_leftovers_of_interrupted_saves_are_removed(last):
    (last / "300.partial" / "state").mkdir(parents=True)
    (last / "300.partial2").touch()
    checkpoint_files.remove_partial(last.parent)
    assert sorted(path.name for path in last.iterdir()) == ["10", "200", "9"]
