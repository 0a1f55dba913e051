import pathlib
import re
import subprocess

from jaxcifar import environment


def test_versions_name_what_computes():
    assert {"jaxcifar", "python", "jax", "flax"} <= set(environment.versions())


def test_git_commit_and_whether_the_code_was_changed(tmp_path, monkeypatch):
    (tmp_path / "jaxcifar").mkdir()
    file = tmp_path / "jaxcifar" / "environment.py"
    file.write_text("x")
    monkeypatch.setattr(environment, "__file__", str(file))
    assert environment.git_commit() is None

    def git(*arguments):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=x")
    assert re.fullmatch("[0-9a-f]{40}", environment.git_commit())
    (tmp_path / "new").touch()  # nothing that git knows
    assert re.fullmatch("[0-9a-f]{40}", environment.git_commit())
    pathlib.Path(file).write_text("y")
    assert re.fullmatch("[0-9a-f]{40}, changed", environment.git_commit())
    monkeypatch.setenv("PATH", "")
    assert environment.git_commit() is None
