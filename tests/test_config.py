import pytest

from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError


def test_default_is_valid_and_complete():
    config = config_lib.default()
    config_lib.validate(config)
    assert config.seed == 42
    assert config.schedule.step_size is None
    assert config.schedule.milestones is None
    assert set(config_lib.describe().split()) >= {f"--config.{n}=0" for n in ("data.limit",)}


@pytest.mark.parametrize("name", ["part1", "part2", "part3", "part3_as_logged", "quickstart"])
def test_shipped_configs_load(name, pytestconfig):
    config_lib.load(str(pytestconfig.rootpath / "configs" / f"{name}.py"))


def test_json_round_trip():
    config = config_lib.default()
    config_lib.override(config, "data.mean", "(0.1, 0.2, 0.3)")
    config_lib.override(config, "schedule.step_size", "7")
    config_lib.override(config, "schedule.milestones", "(30, 60)")
    config_lib.override(config, "schedule.three_phase", "true")
    again = config_lib.from_json(config_lib.to_json(config))
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
        ("optimizer.name", "lion", "'adamw'"),
        ("optimizer.b1", "1", "less than 1"),
        ("optimizer.b2", "-0.1", "0 or more"),
        ("optimizer.eps", "0", "above 0"),
        ("optimizer.clip_norm", "-1", "0 or more"),
        ("optimizer.decay_norms_and_biases", "some", "true or false"),
        ("loss.label_smoothing", "1", "less than 1"),
        ("ema.decay", "1", "less than 1"),
        ("early_stopping.patience", "-1", "0 or more"),
        ("schedule.name", "linear", "'cosine'"),
        ("schedule.name", "multistep", "schedule.milestones is unset"),
        ("schedule.name", "exponential", "schedule.gamma is unset"),
        ("schedule.name", "cosine_warm_restarts", "schedule.T_0 is unset"),
        ("schedule.name", "onecycle", "schedule.max_lr is unset"),
        ("schedule.name", "cyclic", "schedule.max_lr is unset"),
        ("schedule.interval", "batch", "'step', 'epoch'"),
        ("schedule.warmup", "-1", "0 or more"),
        ("schedule.start_factor", "1.1", "at most 1"),
        ("schedule.step_size", "0", "1 or more"),
        ("schedule.milestones", "(30, 6.5)", "whole numbers"),
        ("schedule.milestones", "()", "at least one"),
        ("schedule.milestones", "a", "whole numbers"),
        ("schedule.gamma", "0", "above 0"),
        ("schedule.T_max", "1.5", "whole number"),
        ("schedule.T_0", "0", "1 or more"),
        ("schedule.T_mult", "0", "1 or more"),
        ("schedule.eta_min", "-1e-9", "0 or more"),
        ("schedule.max_lr", "0", "above 0"),
        ("schedule.steps_per_epoch", "0", "1 or more"),
        ("schedule.pct_start", "0", "both excluded"),
        ("schedule.pct_start", "1", "both excluded"),
        ("schedule.anneal_strategy", "cosine", "'cos', 'linear'"),
        ("schedule.div_factor", "1", "above 1"),
        ("schedule.final_div_factor", "1", "above 1"),
        ("schedule.three_phase", "2", "true or false"),
        ("schedule.base_lr", "0", "above 0"),
        ("schedule.step_size_up", "0", "1 or more"),
        ("schedule.step_size_down", "-5", "1 or more"),
        ("schedule.mode", "triangle", "'triangular'"),
        ("schedule.base_momentum", "1", "both excluded"),
        ("schedule.max_momentum", "nan", "both excluded"),
        ("schedule.factor", "1", "both excluded"),
        ("schedule.patience", "-1", "0 or more"),
        ("schedule.threshold", "-1", "0 or more"),
        ("schedule.threshold_mode", "relative", "'rel', 'abs'"),
        ("schedule.cooldown", "-1", "0 or more"),
        ("schedule.min_lr", "-1", "0 or more"),
        ("schedule.eps", "-1", "0 or more"),
        ("model.head", "mlp", "has no effect with model.name='simple_cnn'"),
        ("model.pretrained", "torchvision", "set model.name to 'resnet18' or"),
        ("model.head_hidden", "(64,)", "has no effect with model.head='linear'"),
        ("model.head_hidden", "()", "one or more whole numbers"),
        ("model.head_dropout", "(0.5, 1.0)", "numbers in [0, 1)"),
    ],
)
def test_mistakes_are_named(name, text, said):
    config = config_lib.default()
    with pytest.raises(ConfigError) as caught:
        config_lib.override(config, name, text)
        config_lib.validate(config)
    assert said in str(caught.value)
    assert name.split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule.name": "plateau", "schedule.mode": "triangular"}, "one of 'min', 'max'"),
        (
            {"schedule.name": "cyclic", "schedule.max_lr": "1", "schedule.mode": "min"},
            "one of 'triangular', 'triangular2', 'exp_range'",
        ),
        ({"optimizer.nesterov": "1", "optimizer.momentum": "0"}, "needs an optimizer.momentum"),
    ],
)
def test_keys_that_do_not_go_together(settings, said):
    config = config_lib.default()
    for name, text in settings.items():
        config_lib.override(config, name, text)
    with pytest.raises(ConfigError, match=said):
        config_lib.validate(config)


def test_the_mlp_head_needs_a_dropout_rate_for_each_layer():
    config = config_lib.default()
    config.model.name = "resnet18"
    config.model.head = "mlp"
    config_lib.validate(config)
    config.model.head_hidden = (64,)
    with pytest.raises(ConfigError, match="one rate more"):
        config_lib.validate(config)
    config.model.dropout = 0.1
    config.model.head_hidden = (512, 256)
    with pytest.raises(ConfigError, match=r"model\.dropout=0\.1 has no effect"):
        config_lib.validate(config)


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
    new.early_stopping.patience = 3
    assert config_lib.differences(old, new) == []
    assert len(config_lib.differences(new, old)) == 1  # epochs may only grow
    new.optimizer.lr = 0.5
    assert config_lib.differences(old, new) == ["optimizer.lr: the run has 0.01, you asked for 0.5"]
