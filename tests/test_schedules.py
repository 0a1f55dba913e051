from jaxcifar import config as config_lib
from jaxcifar import schedules


def test_step_lr():
    schedule = schedules.step_lr(0.1, step_size=3, gamma=0.5)
    assert [schedule(i) for i in range(7)] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025]


def test_create_takes_pytorchs_default_for_unset_keys():
    config = config_lib.default()
    config.schedule.name = "step"
    config.schedule.step_size = 2
    assert schedules.create(config)(2) == config.optimizer.lr * 0.1
