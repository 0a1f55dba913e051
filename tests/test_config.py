import pytest

from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError


def test_default_is_valid_and_complete():
    config = config_lib.default()
    config_lib.validate(config)
    assert config.seed == 42
    assert config.schedule.step_size is None
    assert set(config_lib.describe().split()) >= {f"--config.{n}=0" for n in ("data.limit",)}


@pytest.mark.parametrize("name", ["part1", "quickstart"])
def test_shipped_configs_load(name, pytestconfig):
    config_lib.load(str(pytestconfig.rootpath / "configs" / f"{name}.py"))


def test_json_round_trip():
    config = config_lib.default()
    config_lib.override(config, "data.mean", "(0.1, 0.2, 0.3)")
    config_lib.override(config, "schedule.step_size", "7")
    again = config_lib.from_json(config_lib.to_json(config))
    assert again == config
    assert again.data.mean == (0.1, 0.2, 0.3)
    config_lib.validate(again)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "7", 7),
        ("optimizer.lr", "1", 1.0),
        ("optimizer.lr", "1e-3", 1e-3),
        ("optimizer.nesterov", "True", True),
        ("optimizer.nesterov", "0", False),
        ("data.mean", "0.1,0.2,0.3", (0.1, 0.2, 0.3)),
        ("data.dir", "", ""),
        ("schedule.step_size", "3", 3),
    ],
)
def test_override_parses_by_type(name, text, value):
    config = config_lib.default()
    config_lib.override(config, name, text)
    found = config
    for part in name.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("optimiser.lr", "0.1", "did you mean optimizer.lr"),
        ("optimizer", "sgd", "is a group"),
        ("batch_size", "0", "1 or more"),
        ("batch_size", "12.5", "whole number"),
        ("data.val_fraction", "1.5", "between 0 and 1"),
        ("data.mean", "(0.1, 0.2)", "3 numbers"),
        ("data.mean", "a,b,c", "3 numbers"),
        ("optimizer.lr", "nan", "a number"),
        ("optimizer.nesterov", "perhaps", "true or false"),
        ("model.name", "resnet1", "simple_cnn"),
        ("seed", "-1", "2**32"),
        ("schedule.name", "step", "schedule.step_size is unset"),
        ("data.name", "folder", "data.dir is empty"),
    ],
)
def test_mistakes_are_named(name, text, said):
    config = config_lib.default()
    with pytest.raises(ConfigError) as caught:
        config_lib.override(config, name, text)
        config_lib.validate(config)
    assert said in str(caught.value)
    assert name.split(".")[0] in str(caught.value)


def test_types_are_checked_from_python_too():
    config = config_lib.default()
    with config.ignore_type():
        config.num_epochs = "3"
    with pytest.raises(ConfigError, match="num_epochs='3'"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def get_config(:", "line 1: SyntaxError"),
        ("x = 1", "get_config"),
        ("def get_config():\n    return 3", "returned int"),
        (
            "from jaxcifar import config\n\ndef get_config():\n"
            "    c = config.default()\n    c.optimizer.rate = 1\n    return c\n",
            "line 5",
        ),
        ("import nosuchmodule", "line 1: ModuleNotFoundError"),
    ],
)
def test_broken_config_files(tmp_path, source, said):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(ConfigError, match=said):
        config_lib.load(str(path))


def test_differences_allow_what_does_not_change_the_computation():
    old = config_lib.default()
    new = config_lib.default()
    new.num_epochs += 1
    new.wandb.project = "other"
    new.data.dir = "elsewhere"
    assert config_lib.differences(old, new) == []
    assert len(config_lib.differences(new, old)) == 1  # epochs may only grow
    new.optimizer.lr = 0.5
    assert config_lib.differences(old, new) == ["optimizer.lr: the run has 0.01, you asked for 0.5"]
