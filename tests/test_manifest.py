import pytest

from jaxcifar import manifest


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "data"
    (path / "sub").mkdir(parents=True)
    (path / "a").write_bytes(b"abc")
    (path / "sub" / "b").write_bytes(b"")
    manifest.write(path)
    return path


def test_intact_and_unfinished(directory, tmp_path):
    assert manifest.check(directory) == "intact"
    (directory / "manifest.json").unlink()
    assert manifest.check(directory) == "unfinished"
    assert manifest.check(tmp_path / "nothing") == "unfinished"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "a").write_bytes(b"abd"),
        lambda path: (path / "a").write_bytes(b"ab"),
        lambda path: (path / "a").unlink(),
        lambda path: (path / "sub" / "b").rename(path / "b"),
        lambda path: ((path / "a").unlink(), (path / "a").mkdir()),
        lambda path: (path / "manifest.json").write_bytes(b""),
        lambda path: (path / "manifest.json").write_bytes(b"\xff"),
        lambda path: (path / "manifest.json").write_text("[1]"),
    ],
)
def test_damage_is_recognized(directory, damage):
    damage(directory)
    assert manifest.check(directory) == "damaged"


def test_other_files_do_not_matter(directory):
    (directory / ".DS_Store").touch()
    assert manifest.check(directory) == "intact"


def test_disk_that_cannot_be_read_says_nothing_about_the_files(directory, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manifest, "_describe_file", fail)
    with pytest.raises(PermissionError):
        manifest.check(directory)


def test_single_file(tmp_path):
    path = tmp_path / "array.npy"
    path.write_bytes(b"abc")
    manifest.write(path)
    assert manifest.check(path) == "intact"
    path.write_bytes(b"abd")
    assert manifest.check(path) == "damaged"


def test_atomic_write_keeps_the_old_file_where_it_fails(tmp_path):
    path = tmp_path / "file"
    manifest.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        manifest.write_atomically(path, "\ud800")  # no file name has that
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
