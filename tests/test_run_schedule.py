import numpy as np
import pytest

from jaxcifar import config as config_lib
from jaxcifar import schedules
from jaxcifar.run_schedule import RunSchedule
from jaxcifar.spec import ConfigError


def configured(name, num_epochs=10, **settings):
    """Returns a valid config with that schedule."""
    config = config_lib.default()
    config.num_epochs = num_epochs
    config.schedule.name = name
    for key, value in settings.items():
        config.schedule[key] = value
    config_lib.validate(config)
    return config


REQUIRED = {
    "step": {"step_size": 2},
    "multistep": {"milestones": (3, 5)},
    "exponential": {"gamma": 0.9},
    "cosine_warm_restarts": {"T_0": 3},
    "onecycle": {"max_lr": 0.1},
    "cyclic": {"max_lr": 0.1},
}


def lr_after(schedule, intervals):
    """Returns the learning rates after these numbers of intervals, which are also epochs."""
    return [schedule.lr(n, n) for n in intervals]


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_works_with_its_defaults(name, interval):
    config = configured(name, interval=interval, **REQUIRED.get(name, {}))
    schedule = RunSchedule(config, steps_per_epoch=4)
    values = [schedule.epoch_values(epoch) for epoch in range(10)]
    lrs = np.concatenate([value["lr"] for value in values])
    assert lrs.shape == (40,)
    assert lrs.dtype == np.float32
    is_constant_within_epochs = (lrs.reshape(10, 4) == lrs.reshape(10, 4)[:, :1]).all()
    assert is_constant_within_epochs == (interval == "epoch" or name in ("constant", "plateau"))
    assert (np.concatenate([value["momentum"] for value in values]) > 0.5).all()


def test_unset_keys_use_pytorch_defaults():
    config = configured("step", step_size=2)
    assert RunSchedule(config, 7).lr(2, 14) == config.optimizer.lr * 0.1


def test_cosine_and_one_cycle_span_the_run_after_warmup():
    assert lr_after(RunSchedule(configured("cosine"), 7), (0, 10)) == [0.01, 0.0]
    schedule = RunSchedule(configured("cosine", interval="step", warmup=10), 7)
    assert lr_after(schedule, (0, 10, 70)) == pytest.approx([0.01 / 3, 0.01, 0.0])
    assert RunSchedule(configured("cosine", T_max=4), 7).lr(4, 28) == 0.0
    schedule = RunSchedule(configured("onecycle", max_lr=0.1, interval="step"), 7)
    expected = schedules.one_cycle_lr(max_lr=0.1, total_steps=70)
    assert lr_after(schedule, range(71)) == [expected(i) for i in range(71)]
    assert schedule.epoch_values(0)["momentum"][0] == np.float32(0.95)


@pytest.mark.parametrize(("name", "logged"), [("part3", 5.006e-8), ("part3_as_logged", 0.0005113)])
def test_part3_final_lr_as_intended_and_as_logged(name, logged, pytestconfig):
    """On 40,000 images; the second value is in the study's log."""
    config = config_lib.load(str(pytestconfig.rootpath / "configs" / f"{name}.py"))
    schedule = RunSchedule(config, steps_per_epoch=313)
    assert schedule.lr(epoch=50, step=50 * 313) == pytest.approx(logged, rel=1e-4)


def test_schedule_configured_in_steps_can_be_stepped_per_epoch():
    """As the study's run did: see configs/part3_as_logged.py."""
    config = configured(
        "onecycle", 50, max_lr=5e-3, pct_start=0.1, div_factor=10.0, steps_per_epoch=313
    )
    assert round(RunSchedule(config, 313).lr(50, 50 * 313), 7) == 0.0005113
    schedule = RunSchedule(configured("cosine", 10, steps_per_epoch=100), 100)
    assert schedule.lr(10, 1000) == 0  # T_max counts the run's own intervals
    assert "schedule.steps_per_epoch" in schedule.warnings()[0]


def test_momentum_is_the_optimizers_unless_cycled():
    config = configured("onecycle", max_lr=0.1, cycle_momentum=False)
    config.optimizer.momentum = 0.75
    assert set(RunSchedule(config, 7).epoch_values(3)["momentum"]) == {0.75}
    config.optimizer.name, config.optimizer.b1 = "adamw", 0.5
    assert set(RunSchedule(config, 7).epoch_values(3)["momentum"]) == {0.5}


def test_plateau_starts_after_warmup_and_follows_its_mode():
    config = configured("plateau", patience=0, warmup=2, factor=0.5)
    schedule, lrs = RunSchedule(config, 7), []
    for epoch in range(1, 6):
        schedule.end_epoch(epoch, 7 * epoch, val_loss=1.0, val_acc=epoch)
        lrs.append(schedule.lr(epoch, 7 * epoch))
    assert lrs == pytest.approx([0.01 * 2 / 3, 0.01, 0.01, 0.005, 0.0025])
    config.schedule.mode = "max"
    schedule = RunSchedule(config, 7)
    for epoch in range(1, 6):
        schedule.end_epoch(epoch, 7 * epoch, val_loss=1.0, val_acc=epoch)
    assert schedule.lr(5, 35) == 0.01


def test_plateau_state_can_be_restored_and_others_have_none():
    config = configured("plateau", patience=0, factor=0.5)
    schedule = RunSchedule(config, 7)
    for epoch in (1, 2):
        schedule.end_epoch(epoch, 7 * epoch, val_loss=1.0, val_acc=0.0)
    again = RunSchedule(config, 7)
    again.restore(schedule.state)
    assert again.lr(2, 14) == 0.005
    assert again.warnings() == []
    assert again.describe_extension(old_num_epochs=5, epoch=2, step=14) == ""
    constant = RunSchedule(configured("constant"), 7)
    constant.end_epoch(1, 7, val_loss=1.0, val_acc=1.0)
    assert constant.state == {}


def test_unused_settings_are_reported():
    config = configured("cosine", step_size=3, gamma=0.5, start_factor=0.1)
    config.optimizer.name, config.optimizer.nesterov = "adamw", True
    (line,) = RunSchedule(config, 7).warnings()
    unused = ("step_size", "gamma", "start_factor")
    assert all(f"schedule.{key}" in line for key in unused)
    assert "optimizer.nesterov" in line
    config = configured("onecycle", max_lr=0.1, interval="step")
    lines = RunSchedule(config, 7).warnings()
    assert "starts at learning rate 0.004, not at optimizer.lr=0.01" in lines[0]
    assert "overriding optimizer.momentum" in lines[1]
    config = configured("step", step_size=3, warmup=2, start_factor=0.1)
    assert RunSchedule(config, 7).warnings() == []


def test_momentum_bounds_are_ignored_without_momentum_cycling():
    config = configured("onecycle", max_lr=0.01, div_factor=1.5, max_momentum=0.9, pct_start=0.5)
    assert "ignored" not in " ".join(RunSchedule(config, 7).warnings())
    config.schedule.cycle_momentum = False
    (unused, _) = RunSchedule(config, 7).warnings()
    assert unused == "ignored with optimizer 'sgd' and schedule 'onecycle': schedule.max_momentum"


@pytest.mark.parametrize("name", ["constant", "step", "exponential", "plateau", "multistep"])
def test_length_independent_schedules_are_unchanged_by_extension(name):
    long = RunSchedule(configured(name, 20, **REQUIRED.get(name, {})), 7)
    assert long.describe_extension(old_num_epochs=10, epoch=10, step=70) == ""
    short = RunSchedule(configured(name, 10, **REQUIRED.get(name, {})), 7)
    assert short.lr(10, 70) == long.lr(10, 70)


def test_describe_extension_reports_the_learning_rate_change():
    text = RunSchedule(configured("cosine", 20), 7).describe_extension(10, epoch=10, step=70)
    assert "spans 20 epochs instead of 10" in text
    assert "changes from 0 to 0.005" in text
    schedule = RunSchedule(configured("onecycle", 10, max_lr=0.1, interval="step"), 7)
    assert "epochs instead of 5" in schedule.describe_extension(5, epoch=5, step=35)


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", [name for name in schedules.SCHEDULES if name != "plateau"])
def test_plan_of_an_extended_run_keeps_every_value_and_then_holds_the_last(name, interval):
    settings = {"interval": interval, "warmup": 2, **REQUIRED.get(name, {})}
    plan = RunSchedule(configured(name, 10, **settings), 4)
    held = RunSchedule(configured(name, 25, **settings), 4, planned_epochs=10)
    for epoch in range(10):
        for key, values in plan.epoch_values(epoch).items():
            np.testing.assert_array_equal(held.epoch_values(epoch)[key], values)
    for epoch in range(10, 25):
        for key, values in plan.epoch_values(9).items():
            np.testing.assert_array_equal(held.epoch_values(epoch)[key], values[-1])
    text = held.describe_extension(10, epoch=4, step=16, old_planned_epochs=10)
    assert "first 10 epochs" in text and f"stays at {plan.epoch_values(9)['lr'][-1]:.3g}" in text
    respanned = RunSchedule(configured("cosine", 30), 4).describe_extension(25, 20, 80, 10)
    assert "spans 30 epochs instead of 10" in respanned


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "onecycle", "max_lr": 0.1, "warmup": 10}, "schedule.warmup=10"),
        ({"name": "cosine", "warmup": 11}, "schedule.warmup=11"),
        (
            {"name": "onecycle", "max_lr": 0.1, "interval": "step", "steps_per_epoch": 3},
            "schedule.steps_per_epoch=3",
        ),
        ({"name": "onecycle", "max_lr": 0.1, "pct_start": 0.1}, "schedule.pct_start=0.1"),
        ({"name": "cyclic", "max_lr": 0.001}, "schedule.base_lr=0.01"),
        ({"name": "onecycle", "max_lr": 1.0, "max_momentum": 0.5}, "schedule.base_momentum=0.85"),
    ],
)
def test_too_short_run_or_wrong_bounds_raise(settings, message):
    config = configured(**settings)
    with pytest.raises(ConfigError, match=message):
        RunSchedule(config, 7)


def test_learning_rate_that_overflows_raises_before_training(small_config):
    small_config.schedule.name = "exponential"
    for gamma in (1e300, 1e14):
        small_config.schedule.gamma = gamma
        with pytest.raises(ConfigError, match="reaches a learning rate of"):
            RunSchedule(small_config, 10)
