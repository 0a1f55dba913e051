import json

import pytest

from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError
from jaxcifar.config_keys import GROUPS, all_keys
from jaxcifar.spec import Fraction, PositiveInt


def test_default_is_valid_and_complete():
    config = config_lib.default()
    config_lib.validate(config)
    assert config.seed == 42
    assert config.schedule.step_size is None
    assert config.schedule.milestones is None
    assert "--config.data.limit=0" in config_lib.describe().split()


@pytest.mark.parametrize(
    "name", ["part1", "part2", "part3", "part3_as_logged", "part3_bf16", "quickstart"]
)
def test_shipped_configs_load(name, pytestconfig):
    config_lib.load(str(pytestconfig.rootpath / "configs" / f"{name}.py"))


def test_what_is_no_config_raises():
    for value in (None, {}, 3):
        with pytest.raises(ConfigError, match="not a ConfigDict: start from"):
            config_lib.validate(value)
    config = config_lib.default().unlock()
    config.data.again = config
    with pytest.raises(ConfigError, match="the config contains itself"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    "body",
    ["import sys; sys.exit(0)", "raise SystemExit", "1 / 0", "def f(: pass", "return 3", "\0"],
)
def test_config_file_that_fails_raises_with_its_line(tmp_path, body):
    path = tmp_path / "bad.py"
    path.write_text(f"import os\n{body}\n")
    with pytest.raises(ConfigError, match=r"bad\.py"):
        config_lib.load(str(path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parallel.cpu_devices", 100_000),
        ("batch_size", 10**12),
        ("data.synthetic_size", 10**12),
        ("optimizer.skip_nonfinite", -1),
        ("checkpoint.every_steps", -1),
        ("checkpoint.every_seconds", float("nan")),
    ],
)
def test_absurd_values_raise(name, value):
    config = config_lib.default()
    config.data.name = "synthetic100"
    group, _, key = name.rpartition(".")
    node = config[group] if group else config
    with node.ignore_type():
        node[key] = value
    with pytest.raises(ConfigError, match=f"config.{name}="):
        config_lib.validate(config)


def test_json_round_trip():
    config = config_lib.default()
    config_lib.override(config, "data.mean", "(0.1, 0.2, 0.3)")
    config_lib.override(config, "schedule.step_size", "7")
    config_lib.override(config, "schedule.milestones", "(30, 60)")
    config_lib.override(config, "schedule.three_phase", "true")
    again = config_lib.from_dict(json.loads(config_lib.to_json(config)))
    assert again == config
    assert again.data.mean == (0.1, 0.2, 0.3)
    assert again.schedule.milestones == (30, 60)
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
        ("schedule.milestones", "3", (3,)),
        ("schedule.milestones", "(30, 60)", (30, 60)),
        ("schedule.max_lr", "1", 1.0),
        ("schedule.cycle_momentum", "false", False),
    ],
)
def test_override_parses_by_type(name, text, value):
    config = config_lib.default()
    config_lib.override(config, name, text)
    node = config
    for part in name.split("."):
        node = node[part]
    assert node == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("optimiser.lr", "0.1", "did you mean optimizer.lr"),
        ("optimizer", "sgd", "is a group"),
        ("batch_size", "0", "in [1, 2147483647]"),
        ("batch_size", "12.5", "an integer"),
        ("data.val_fraction", "1.5", "a number in (0, 1)"),
        ("data.mean", "(0.1, 0.2)", "three numbers in [0, 1]"),
        ("data.mean", "a,b,c", "three numbers"),
        ("optimizer.lr", "nan", "a number"),
        ("optimizer.nesterov", "perhaps", "true or false"),
        ("model.name", "resnet1", "simple_cnn"),
        ("seed", "-1", "an integer from 0 to 2**32 - 1"),
        ("schedule.name", "step", "schedule.step_size is unset"),
        ("data.name", "folder", "data.dir is unset"),
        ("optimizer.name", "lion", "'adamw'"),
        ("optimizer.b1", "1", "a number in [0, 1)"),
        ("optimizer.b2", "-0.1", "a number in [0, 1)"),
        ("optimizer.eps", "0", "above 0"),
        ("optimizer.clip_norm", "-1", "0 or more"),
        ("optimizer.decay_norms_and_biases", "some", "true or false"),
        ("loss.label_smoothing", "1", "in [0, 1)"),
        ("ema.decay", "1", "in [0, 1)"),
        ("early_stopping.patience", "-1", "0 or more"),
        ("schedule.name", "linear", "'cosine'"),
        ("schedule.name", "multistep", "schedule.milestones is unset"),
        ("schedule.name", "exponential", "schedule.gamma is unset"),
        ("schedule.name", "cosine_warm_restarts", "schedule.T_0 is unset"),
        ("schedule.name", "onecycle", "schedule.max_lr is unset"),
        ("schedule.name", "cyclic", "schedule.max_lr is unset"),
        ("schedule.interval", "batch", "'step', 'epoch'"),
        ("schedule.warmup", "-1", "0 or more"),
        ("schedule.start_factor", "1.1", "in (0, 1]"),
        ("schedule.step_size", "0", "1 or more"),
        ("schedule.milestones", "(30, 6.5)", "a tuple of integers, 0 or more"),
        ("schedule.milestones", "()", "at least one"),
        ("schedule.milestones", "a", "integers"),
        ("schedule.gamma", "0", "above 0"),
        ("schedule.T_max", "1.5", "an integer"),
        ("schedule.T_0", "0", "1 or more"),
        ("schedule.T_mult", "0", "1 or more"),
        ("schedule.eta_min", "-1e-9", "0 or more"),
        ("schedule.max_lr", "0", "above 0"),
        ("schedule.steps_per_epoch", "0", "1 or more"),
        ("schedule.pct_start", "0", "in (0, 1)"),
        ("schedule.pct_start", "1", "in (0, 1)"),
        ("schedule.anneal_strategy", "cosine", "'cos', 'linear'"),
        ("schedule.div_factor", "1", "above 1"),
        ("schedule.final_div_factor", "1", "above 1"),
        ("schedule.three_phase", "2", "true or false"),
        ("schedule.base_lr", "0", "above 0"),
        ("schedule.step_size_up", "0", "1 or more"),
        ("schedule.step_size_down", "-5", "1 or more"),
        ("schedule.mode", "triangle", "'triangular'"),
        ("schedule.base_momentum", "1", "in (0, 1)"),
        ("schedule.max_momentum", "nan", "in (0, 1)"),
        ("schedule.factor", "1", "in (0, 1)"),
        ("schedule.patience", "-1", "0 or more"),
        ("schedule.threshold", "-1", "0 or more"),
        ("schedule.threshold_mode", "relative", "'rel', 'abs'"),
        ("schedule.cooldown", "-1", "0 or more"),
        ("schedule.min_lr", "-1", "0 or more"),
        ("schedule.eps", "-1", "0 or more"),
        ("model.head", "mlp", "has no effect with model.name='simple_cnn'"),
        ("model.pretrained", "torchvision", "set model.name to 'resnet18' or"),
        ("model.stem", "imagenet", "has no effect with model.name='simple_cnn'"),
        ("model.head_hidden", "()", "integers, 1 or more, at least one"),
        ("model.head_dropout", "(0.5, 1.0)", "numbers in [0, 1)"),
    ],
)
def test_invalid_values_raise(name, text, message):
    config = config_lib.default()
    with pytest.raises(ConfigError) as caught:
        config_lib.override(config, name, text)
        config_lib.validate(config)
    assert message in str(caught.value)
    assert name.split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule.name": "plateau", "schedule.mode": "triangular"}, "one of 'min', 'max'"),
        (
            {"schedule.name": "cyclic", "schedule.max_lr": "1", "schedule.mode": "min"},
            "one of 'triangular', 'triangular2', 'exp_range'",
        ),
        (
            {"optimizer.nesterov": "1", "optimizer.momentum": "0"},
            "config.optimizer.nesterov=True needs a momentum above 0",
        ),
        (
            {"model.name": "resnet18", "model.head_hidden": "(64,)"},
            r"config.model.head_hidden=\(64,\) has no effect with model.head='linear'",
        ),
    ],
)
def test_incompatible_keys_raise(settings, message):
    config = config_lib.default()
    for name, text in settings.items():
        config_lib.override(config, name, text)
    with pytest.raises(ConfigError, match=message):
        config_lib.validate(config)


def test_mlp_head_needs_one_dropout_rate_per_layer():
    config = config_lib.default()
    config.model.name = "resnet18"
    config.model.head = "mlp"
    config_lib.validate(config)
    config.model.head_hidden = (64,)
    with pytest.raises(ConfigError, match="one more entry"):
        config_lib.validate(config)
    config.model.dropout = 0.1
    config.model.head_hidden = (512, 256)
    with pytest.raises(ConfigError, match=r"model\.dropout=0\.1 has no effect"):
        config_lib.validate(config)


def test_types_set_from_python_are_checked():
    config = config_lib.default()
    with config.ignore_type():
        config.num_epochs = "3"
    with pytest.raises(ConfigError, match="num_epochs='3'"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("source", "message"),
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
def test_broken_config_files_raise(tmp_path, source, message):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(ConfigError, match=message):
        config_lib.load(str(path))


def test_differences_ignore_keys_that_do_not_affect_results():
    old = config_lib.default()
    new = config_lib.default()
    new.num_epochs += 1
    new.wandb.project = "other"
    new.data.dir = "elsewhere"
    new.early_stopping.patience = 3
    assert config_lib.differences(old, new) == []
    assert len(config_lib.differences(new, old)) == 1  # epochs may only grow
    new.optimizer.lr = 0.5
    assert config_lib.differences(old, new) == ["optimizer.lr: the run has 0.01, you asked for 0.5"]


def test_config_loads_by_name_or_lists_available(pytestconfig, monkeypatch):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert config_lib.load("part1").config_file == "configs/part1.py"
    with pytest.raises(ConfigError, match=r"no config file 'part9'; known by name: part1, part2"):
        config_lib.load("part9")


def test_config_file_is_recorded_and_cannot_be_set(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from jaxcifar import config\ndef get_config(): return config.default()\n")
    config = config_lib.load(str(path))
    assert config.config_file == str(path)
    assert len(config.config_sha256) == 64
    with pytest.raises(ConfigError, match="does not exist"):
        config_lib.override(config, "config_file", "other.py")
    assert "config_file" not in config_lib.describe(config)


def test_help_shows_config_values_and_schedule_defaults():
    config = config_lib.default()
    config.optimizer.lr = 0.5
    lines = config_lib.describe(config).splitlines()
    assert "  --config.optimizer.lr=0.5" in lines
    gamma = lines.index("  --config.schedule.gamma=unset")
    assert (
        lines[gamma + 1] == "      step, multistep: decay factor (default 0.1) [a number above 0]"
    )
    assert "exponential: factor per interval (required)" in lines[gamma + 2]
    T_max = lines[lines.index("  --config.schedule.T_max=unset") + 1]
    assert "cosine: intervals until eta_min is reached (default: to the end of the run)" in T_max


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_key_is_documented(group):
    for name, key in all_keys().items():
        if name.startswith(f"{group}."):
            assert all(parameter.meaning for parameter in key.declarations.values()), name


def test_keys_with_conflicting_defaults_are_unset():
    keys = all_keys()
    assert keys["model.width"].default == 0
    assert keys["optimizer.weight_decay"].default == 5e-4
    assert keys["data.dir"].default == ""
    assert all(
        keys[f"schedule.{name}"].default is None
        for entry in GROUPS["schedule"].registry.values()
        for name in entry.parameters
    )


@pytest.fixture
def extra_models():
    """Models whose parameters meet those of the built-in ones; forgotten afterwards."""
    from jaxcifar import models

    def small_net(*, num_classes, rngs, dtype, depth: PositiveInt, dropout: Fraction = 0.1):
        """Returns nothing."""

    models.model(small_net)
    yield
    del models.MODELS._entries["small_net"]


def test_a_required_parameter_may_have_the_value_of_anothers_default(extra_models):
    config = config_lib.default()
    config.model.name = "small_net"
    with pytest.raises(ConfigError, match=r"model\.depth is unset"):
        config_lib.validate(config)
    config.model.depth = 28  # wide_resnet's default
    config_lib.validate(config)


def test_a_new_function_with_other_defaults_changes_no_run():
    old = config_lib.default()
    old_dict = old.to_dict()
    from jaxcifar import models

    try:

        @models.model
        def other_net(*, num_classes, rngs, dtype, dropout: Fraction = 0.1, size: PositiveInt = 3):
            """Returns nothing."""

        new = config_lib.default()
        assert new.model.dropout is None  # the functions differ
        assert config_lib.differences(config_lib.from_dict(old_dict), new) == []
        config_lib.validate(old)  # which lacks model.size
    finally:
        del models.MODELS._entries["other_net"]


def test_groups_know_the_names_that_the_configs_own_keys_take():
    for group, row in GROUPS.items():
        own = {
            name.removeprefix(f"{group}.")
            for name, key in all_keys().items()
            if name.startswith(f"{group}.") and not key.owners
        }
        assert own - {"lr"} == set(row.registry.taken), group


def test_frozen_configs_and_unreadable_files(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxcifar import config\nfrom ml_collections import FrozenConfigDict\n"
        "def get_config(): return FrozenConfigDict(config.default())\n"
    )
    assert config_lib.load(str(path)).seed == 42


def test_huge_numbers_are_not_valid():
    config = config_lib.default()
    with pytest.raises(ConfigError, match="is not valid"):
        config_lib.override(config, "optimizer.lr", "1" + "0" * 400)
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": "random_flip"}, "must have augmix once"),
        ({"augment": ""}, "must have augmix once"),
        ({"augment": "augmix", "mixup.prob": 0.5}, "compares views of one image: set mixup.prob"),
    ],
)
def test_consistency_needs_augmix_and_no_mixing(settings, message):
    config = config_lib.default()
    config.loss.consistency = 12.0
    for key, value in settings.items():
        config_lib.override(config, key, str(value))
    with pytest.raises(ConfigError, match=message):
        config_lib.validate(config)
