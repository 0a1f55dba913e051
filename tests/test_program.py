import math

import numpy as np
import pytest

from jaxcifar import data, parallel
from jaxcifar.ahead import AheadOfTime
from jaxcifar.program import Program, choose_steps_per_call, plan_calls
from jaxcifar.run_schedule import RunSchedule
from jaxcifar.spec import ConfigError


@pytest.fixture
def program(small_config):
    small_config.batch_size, small_config.eval.batch_size = 50, 64  # the last ones are smaller
    return Program(small_config, parallel.setup(small_config), data.load(small_config))


def test_epoch_trains_on_every_image_once(program, small_config):
    schedule = RunSchedule(small_config, program.steps_per_epoch)
    state = program.init()
    before = program.evaluate(state.model, "train")
    calls = [
        (call.step_in_epoch, float(call.sums["count"].sum()))
        for call in program.train_epoch(state, 0, schedule.epoch_values(0))
    ]
    assert calls == [(step, 50) for step in range(1, 10)] + [(10, 30)]
    order = np.asarray(program.epoch_order(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(480))
    assert (order != np.asarray(program.epoch_order(1))).any()
    assert before[0] > 0


def test_epoch_can_be_resumed_in_the_middle(program, small_config):
    """To the same state, bit for bit: the programs are the same."""
    values = RunSchedule(small_config, program.steps_per_epoch).epoch_values(0)
    *_, whole = program.train_epoch(program.init(), 0, values)
    calls = program.train_epoch(program.init(), 0, values)
    state = next(call.state for call in calls if call.step_in_epoch == 6)
    *_, resumed = program.train_epoch(state, 0, values, first_step=6)
    for name, leaf in whole.state.params["conv1"].items():
        np.testing.assert_array_equal(leaf, resumed.state.params["conv1"][name])


def test_run_compiles_nothing_that_was_compiled_ahead(program, small_config, monkeypatch):
    values = RunSchedule(small_config, program.steps_per_epoch).epoch_values(0)
    program.compile_ahead(values, first_only=True)
    program.compile_ahead(values)
    program.init()
    program._executor.shutdown()  # waits
    monkeypatch.setattr(AheadOfTime, "_compile", lambda *_: pytest.fail("compiled again"))
    *_, last = program.train_epoch(program.init(), 0, values)
    program.evaluate(last.state.model, "val")
    program.logits(last.state.model, np.zeros((120, 32, 32, 3), np.uint8))


def test_describe_memory_after_compilation(program, small_config):
    values = RunSchedule(small_config, program.steps_per_epoch).epoch_values(0)
    next(program.train_epoch(program.init(), 0, values))
    assert "MB training images" in program.describe_memory()


def test_data_that_does_not_fit_raises(small_config, monkeypatch):
    monkeypatch.setattr("jaxcifar.memory.available_bytes", lambda: 1)
    with pytest.raises(ConfigError, match="GB is available"):
        Program(small_config, parallel.setup(small_config), data.load(small_config))


def test_arrays_for_histograms_by_layer(program):
    state = program.init()
    arrays = program.histogram_arrays(state)
    assert arrays["gradients/conv1.kernel"].shape == (3, 3, 3, 4)
    assert abs(arrays["gradients/fc2.bias"]).max() > 0
    np.testing.assert_array_equal(arrays["parameters/fc2.bias"], state.params["fc2"]["bias"])
    state.params["fc2"]["bias"] += np.inf
    assert "parameters/fc2.bias" not in program.histogram_arrays(state)


@pytest.mark.parametrize(
    ("num_images", "steps_per_call", "first_step"),
    [(480, 1, 0), (480, 4, 0), (450, 4, 0), (480, 4, 8)],
)
def test_plan_covers_every_image_once(num_images, steps_per_call, first_step):
    calls = list(plan_calls(num_images, 50, steps_per_call, first_step))
    assert sum(steps * size for _, steps, size in calls) == num_images - first_step * 50
    assert [call[0] for call in calls] == list(
        np.cumsum([first_step] + [steps for _, steps, _ in calls[:-1]])
    )
    assert sum(steps for _, steps, _ in calls) == math.ceil(num_images / 50) - first_step


@pytest.mark.parametrize(
    ("full_steps", "platform", "steps"), [(312, "cpu", 1), (312, "gpu", 52), (313, "gpu", 64)]
)
def test_steps_per_call_is_chosen_for_the_platform(full_steps, platform, steps):
    assert choose_steps_per_call(full_steps, platform) == steps
