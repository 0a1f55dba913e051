import pathlib

import pytest

from jaxcifar import config as config_lib
from jaxcifar import config_files
from jaxcifar.spec import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path):
    path.parent.mkdir(exist_ok=True)
    path.write_text("from jaxcifar import config\ndef get_config(): return config.default()\n")
    return path


@pytest.mark.parametrize("path", ["part2", "part2.py", "configs/part2.py", "./configs/part2.py"])
def test_shipped_configs_load_from_anywhere_and_are_named_as_in_a_checkout(path):
    config = config_lib.load(path)
    assert config.model.name == "resnet18"
    assert config.config_file == "configs/part2.py"


def test_every_shipped_config_loads_from_anywhere():
    shipped = [path.stem for path in config_files.SHIPPED.glob("*.py")]
    assert len(shipped) >= 6
    for name in shipped:  # some load another one
        assert config_lib.load(name).config_file == f"configs/{name}.py"


def test_own_files_come_first():
    folder = write(pathlib.Path("configs/part2.py"))
    assert config_files.find("part2") == config_files.find("part2.py") == folder
    assert config_files.find("configs/part2.py") == folder
    own = write(pathlib.Path("part2.py"))
    assert config_files.find("part2.py") == own
    assert config_files.find("part2") == folder
    assert config_lib.load("part2").config_file == "configs/part2.py"


@pytest.mark.parametrize("path", ["part9", "configs/part9.py", "other/part2.py", "/part2.py", ""])
def test_unknown_files_raise_and_the_known_names_are_listed(path):
    write(pathlib.Path("configs/mine.py"))
    assert config_files.find(path) is None
    with pytest.raises(ConfigError, match="known by name: mine, part1, part2, part3") as caught:
        config_lib.load(path)
    assert f"no config file {path!r}" in str(caught.value)
