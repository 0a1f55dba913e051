import numpy as np
import pytest

from jaxcifar import config as config_lib
from jaxcifar import hyperparameters, schedules
from jaxcifar.config import ConfigError


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


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", config_lib.SCHEDULES)
def test_every_schedule_can_be_had_with_its_defaults(name, interval):
    config = configured(name, interval=interval, **REQUIRED.get(name, {}))
    schedule = hyperparameters.create(config, steps_per_epoch=4)
    tables = [hyperparameters.tabulate(config, schedule, epoch, 4) for epoch in range(10)]
    lrs = np.concatenate([table["lr"] for table in tables])
    assert lrs.shape == (40,)
    assert lrs.dtype == np.float32
    by_epoch = (lrs.reshape(10, 4) == lrs.reshape(10, 4)[:, :1]).all()
    assert by_epoch == (interval == "epoch" or name in ("constant", "plateau"))
    assert (np.concatenate([table["momentum"] for table in tables]) > 0.5).all()


def test_unset_keys_take_pytorchs_default():
    config = configured("step", step_size=2)
    assert hyperparameters.create(config, 7)["lr"](2) == config.optimizer.lr * 0.1


def test_cosine_and_one_cycle_span_the_run_without_its_warm_up():
    lr = hyperparameters.create(configured("cosine"), 7)["lr"]
    assert [lr(0), lr(10)] == [0.01, 0.0]
    lr = hyperparameters.create(configured("cosine", interval="step", warmup=10), 7)["lr"]
    assert [lr(0), lr(10), lr(70)] == pytest.approx([0.01 / 3, 0.01, 0.0])
    lr = hyperparameters.create(configured("cosine", T_max=4), 7)["lr"]
    assert lr(4) == 0.0
    found = hyperparameters.create(configured("onecycle", max_lr=0.1, interval="step"), 7)
    expected = schedules.one_cycle_lr(max_lr=0.1, total_steps=70)
    assert [found["lr"](i) for i in range(71)] == [expected(i) for i in range(71)]
    assert found["momentum"](0) == 0.95


@pytest.mark.parametrize(("name", "logged"), [("part3", 5.006e-8), ("part3_as_logged", 0.0005113)])
def test_part3_ends_as_it_should_and_as_it_did(name, logged, pytestconfig):
    """On 40,000 images; the second number is in the study's log."""
    config = config_lib.load(str(pytestconfig.rootpath / "configs" / f"{name}.py"))
    schedule = hyperparameters.create(config, steps_per_epoch=313)
    end = hyperparameters.interval(config, epoch=50, step=50 * 313)
    assert schedule["lr"](end) == pytest.approx(logged, rel=1e-4)


def test_one_cycle_can_count_steps_and_be_stepped_by_epoch():
    """As the study's run did: see configs/part3_as_logged.py."""
    config = configured(
        "onecycle", 50, max_lr=5e-3, pct_start=0.1, div_factor=10.0, steps_per_epoch=313
    )
    lr = hyperparameters.create(config, 313)["lr"]
    assert round(lr(50), 7) == 0.0005113


def test_momentum_is_the_optimizers_unless_it_cycles():
    config = configured("onecycle", max_lr=0.1, cycle_momentum=False)
    config.optimizer.momentum = 0.7
    assert hyperparameters.create(config, 7)["momentum"](3) == 0.7
    config.optimizer.name = "adamw"
    assert hyperparameters.create(config, 7)["momentum"](3) == 0.9


def test_plateau_is_asked_after_the_warm_up_and_watches_what_its_mode_says():
    config = configured("plateau", patience=0, warmup=2, factor=0.5)
    state, lrs = {}, []
    for epoch in range(1, 6):
        state = hyperparameters.after_epoch(config, state, epoch, val_loss=1.0, val_acc=epoch)
        lrs.append(hyperparameters.create(config, 7, state)["lr"](epoch))
    assert lrs == pytest.approx([0.01 * 2 / 3, 0.01, 0.01, 0.005, 0.0025])
    config.schedule.mode = "max"
    state = {}
    for epoch in range(1, 6):
        state = hyperparameters.after_epoch(config, state, epoch, val_loss=1.0, val_acc=epoch)
    assert state["lr"] == 0.01
    assert hyperparameters.after_epoch(configured("constant"), {}, 1, 1.0, 1.0) == {}


def test_what_is_not_used_is_said():
    config = configured("cosine", step_size=3, gamma=0.5, start_factor=0.1)
    config.optimizer.name, config.optimizer.nesterov = "adamw", True
    (line,) = hyperparameters.notes(config, hyperparameters.create(config, 7))
    unused = ("step_size", "gamma", "start_factor")
    assert all(f"schedule.{key}" in line for key in unused)
    assert "optimizer.nesterov" in line
    config = configured("onecycle", max_lr=0.1, interval="step")
    lines = hyperparameters.notes(config, hyperparameters.create(config, 7))
    assert "starts at learning rate 0.004, not at optimizer.lr=0.01" in lines[0]
    assert "in place of optimizer.momentum" in lines[1]
    config = configured("step", step_size=3, warmup=2, start_factor=0.1)
    assert hyperparameters.notes(config, hyperparameters.create(config, 7)) == []


@pytest.mark.parametrize("name", ["constant", "step", "exponential", "plateau", "multistep"])
def test_schedules_that_do_not_depend_on_the_length_go_on_as_they_were(name):
    config = configured(name, 20, **REQUIRED.get(name, {}))
    assert hyperparameters.extension(config, 7, old_epochs=10, number=10) == ""
    short = hyperparameters.create(configured(name, 10, **REQUIRED.get(name, {})), 7)
    assert short["lr"](10) == hyperparameters.create(config, 7)["lr"](10)


def test_an_extension_says_what_happens_to_the_learning_rate():
    said = hyperparameters.extension(configured("cosine", 20), 7, old_epochs=10, number=10)
    assert "spans 20 epochs instead of 10" in said
    assert "goes from 0 to 0.005" in said
    config = configured("onecycle", 10, max_lr=0.1, interval="step")
    assert "epochs instead of 5" in hyperparameters.extension(config, 7, 5, 35)


@pytest.mark.parametrize(
    ("settings", "said"),
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
def test_what_cannot_span_the_run_is_named(settings, said):
    config = configured(**settings)
    with pytest.raises(ConfigError, match=said):
        hyperparameters.create(config, 7)
