import json
import pathlib

import numpy as np
import pytest

from jaxcifar import schedules
from jaxcifar.parity.schedules import our_plateau, our_values, their_plateau, their_values

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "schedules.npz")


def assert_within_1e6_of_the_peak(values, expected):
    assert (np.abs(values - expected).max(0) <= 1e-6 * expected.max(0)).all()


@pytest.mark.parametrize("index", range(len(GOLDEN["cases"])), ids=lambda i: GOLDEN["cases"][i])
def test_matches_pytorch_at_every_step(index):
    case = json.loads(str(GOLDEN["cases"][index]))
    assert_within_1e6_of_the_peak(our_values(*case), GOLDEN[f"values_{index}"])


@pytest.mark.parametrize("index", range(len(GOLDEN["plateau_cases"])))
def test_plateau_matches_pytorch(index):
    arguments = json.loads(str(GOLDEN["plateau_cases"][index]))
    lrs = our_plateau(arguments, 0.1, GOLDEN["plateau_metrics"].tolist())
    np.testing.assert_allclose(lrs, GOLDEN["plateau_values"][index], rtol=1e-12)
    assert len(set(lrs)) > 2


def test_logged_lr_is_of_a_schedule_stepped_once_an_epoch():
    rate = schedules.one_cycle_lr(max_lr=5e-3, total_steps=50 * 313, pct_start=0.1, div_factor=10)
    assert round(rate(50), 7) == 0.0005113
    assert rate(50 * 313) == pytest.approx(5e-8, rel=0.01)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (schedules.step_lr, {"lr": 0.1, "step_size": 0}, "step_size=0"),
        (schedules.step_lr, {"lr": -1, "step_size": 1}, "lr=-1"),
        (schedules.step_lr, {"lr": 0.1, "step_size": 1, "gamma": 0}, "gamma=0"),
        (schedules.multistep_lr, {"lr": 0.1, "milestones": [3, -1]}, "milestones="),
        (schedules.multistep_lr, {"lr": 0.1, "milestones": []}, "milestones="),
        (schedules.exponential_lr, {"lr": 0.1, "gamma": float("nan")}, "gamma=nan"),
        (schedules.cosine_annealing_lr, {"lr": 0.1, "T_max": 2.5}, "T_max=2.5"),
        (schedules.cosine_annealing_lr, {"lr": 0.1, "T_max": 2, "eta_min": -1}, "eta_min=-1"),
        (schedules.cosine_annealing_warm_restarts, {"lr": 0.1, "T_0": 0}, "T_0=0"),
        (schedules.cosine_annealing_warm_restarts, {"lr": 1, "T_0": 1, "T_mult": 0}, "T_mult=0"),
        (schedules.one_cycle_lr, {"max_lr": 0.0, "total_steps": 9}, "max_lr=0.0"),
        (schedules.one_cycle_lr, {"max_lr": 1, "total_steps": 0}, "total_steps=0"),
        (schedules.one_cycle_lr, {"max_lr": 1, "total_steps": 9.5}, "total_steps=9.5"),
        (schedules.one_cycle_lr, {"max_lr": 1, "total_steps": 9, "pct_start": 1}, "pct_start=1"),
        (schedules.one_cycle_lr, {"max_lr": 1, "total_steps": 9, "div_factor": 1}, "div_factor=1"),
        (
            schedules.one_cycle_lr,
            {"max_lr": 1, "total_steps": 9, "final_div_factor": 0.5},
            "final_div_factor=0.5",
        ),
        (
            schedules.one_cycle_lr,
            {"max_lr": 1, "total_steps": 9, "anneal_strategy": "cubic"},
            "anneal_strategy='cubic'",
        ),
        (schedules.one_cycle_lr, {"max_lr": 1, "total_steps": 10, "pct_start": 0.1}, "no length"),
        (schedules.one_cycle_momentum, {"total_steps": 9, "max_momentum": 1.0}, "max_momentum=1.0"),
        (schedules.one_cycle_momentum, {"total_steps": 9, "max_momentum": 0.5}, "must be at most"),
        (schedules.cyclic_lr, {"base_lr": 0.1, "max_lr": 0.01}, "must be at most"),
        (schedules.cyclic_lr, {"base_lr": 0.1, "max_lr": 1, "mode": "min"}, "mode='min'"),
        (schedules.cyclic_lr, {"base_lr": 0.1, "max_lr": 1, "step_size_up": 0}, "step_size_up=0"),
        (schedules.cyclic_lr, {"base_lr": 1, "max_lr": 1, "step_size_down": 0}, "step_size_down=0"),
        (schedules.cyclic_momentum, {"base_momentum": 0}, "base_momentum=0"),
        (schedules.warm_up, {"schedule_fn": None, "warmup": -1}, "warmup=-1"),
        (
            schedules.warm_up,
            {"schedule_fn": None, "warmup": 1, "start_factor": 0},
            "start_factor=0",
        ),
        (schedules.reduce_lr_on_plateau, {"state": {}, "metric": 1, "factor": 1}, "factor=1"),
        (schedules.reduce_lr_on_plateau, {"state": {}, "metric": 1, "mode": "low"}, "mode='low'"),
    ],
)
def test_out_of_range_arguments_raise(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**arguments)


def test_one_cycle_raises_outside_its_steps():
    rate = schedules.one_cycle_lr(max_lr=1.0, total_steps=20)
    rate(20)
    for step in (-1, 21):
        with pytest.raises(ValueError, match="total_steps=20"):
            rate(step)


@pytest.mark.torch
def test_matches_pytorch_for_any_parameters():
    pytest.importorskip("torch")
    from hypothesis import assume, given, settings
    from hypothesis import strategies as st

    number = st.floats(1e-4, 1.0)
    count = st.integers(1, 40)
    factor = st.floats(1.01, 1e4)
    momenta = {"base_momentum": st.floats(0.1, 0.8), "max_momentum": st.floats(0.8, 0.99)}
    shapes = {
        "StepLR": {"step_size": count, "gamma": st.floats(0.05, 1.1)},
        "MultiStepLR": {"milestones": st.lists(count, min_size=1), "gamma": st.floats(0.05, 1.1)},
        "ExponentialLR": {"gamma": st.floats(0.5, 1.1)},
        "CosineAnnealingLR": {"T_max": count, "eta_min": st.floats(0, 1e-3)},
        "CosineAnnealingWarmRestarts": {
            "T_0": count,
            "T_mult": st.integers(1, 4),
            "eta_min": st.floats(0, 1e-3),
        },
        "OneCycleLR": {
            "max_lr": number,
            "pct_start": st.floats(0.01, 0.99),
            "anneal_strategy": st.sampled_from(["cos", "linear"]),
            "div_factor": factor,
            "final_div_factor": factor,
            "three_phase": st.booleans(),
            "cycle_momentum": st.booleans(),
            **momenta,
        },
        "CyclicLR": {
            "base_lr": st.floats(1e-5, 1e-4),
            "max_lr": number,
            "step_size_up": count,
            "step_size_down": st.none() | count,
            "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
            "gamma": st.floats(0.8, 1.0),
            **momenta,
        },
    }

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(
        st.data(), st.sampled_from(sorted(shapes)), number, st.integers(1, 120), st.just(0) | count
    )
    def follows(data, name, lr, steps, warmup):
        arguments = {key: data.draw(values, label=key) for key, values in shapes[name].items()}
        if name == "OneCycleLR":
            rise = arguments["pct_start"] * steps - 1  # PyTorch divides by zero where this is 0
            assume(abs(rise) > 1e-3 and abs(2 * rise - (steps - 1)) > 1e-3)
            assume(rise > 0 or not warmup)  # else PyTorch's warm-up starts from another value
            arguments["total_steps"] = steps
        case = (name, lr, arguments, steps + warmup, warmup)
        assert_within_1e6_of_the_peak(our_values(*case), their_values(*case))

    follows()


@pytest.mark.torch
def test_plateau_matches_pytorch_for_any_parameters():
    pytest.importorskip("torch")
    from hypothesis import given, settings
    from hypothesis import strategies as st

    arguments = st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["min", "max"]),
            "factor": st.floats(0.1, 0.95),
            "patience": st.integers(0, 3),
            "threshold": st.floats(0, 0.3),
            "threshold_mode": st.sampled_from(["rel", "abs"]),
            "cooldown": st.integers(0, 3),
            "min_lr": st.floats(0, 0.05),
            "eps": st.floats(0, 1e-2),
        }
    )

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(arguments, st.lists(st.floats(-2, 2), min_size=1, max_size=40))
    def follows(arguments, metrics):
        assert our_plateau(arguments, 0.1, metrics) == their_plateau(arguments, 0.1, metrics)

    follows()
