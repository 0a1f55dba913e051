import json
import pathlib

import jax
import numpy as np
import optax
import pytest

from jaxcifar import config as config_lib
from jaxcifar import optimizers
from jaxcifar.parity.optimizers import IN_FLOAT32, SHAPES, our_params
from jaxcifar.run_schedule import RunSchedule
from jaxcifar.spec import ConfigError

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "optimizers.npz")


def error(params, expected):
    """Returns the largest difference, relative to each tensor's largest value."""
    return max(
        np.abs(params[key] - expected[key]).max() / np.abs(expected[key]).max() for key in expected
    )


@pytest.mark.numerics
@pytest.mark.parametrize("index", range(len(GOLDEN["cases"])), ids=lambda i: GOLDEN["cases"][i])
def test_matches_pytorch_for_200_steps(index):
    """In float64, and one case of every optimizer in float32."""
    case = json.loads(str(GOLDEN["cases"][index]))
    for dtype, limit in (("float64", 1e-12), ("float32", 1e-6)):
        if dtype == "float64" or index in IN_FLOAT32:
            expected = {key: GOLDEN[f"{dtype}_{index}_{key}"] for key in SHAPES}
            assert error(our_params(*case, dtype), expected) <= limit, dtype


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_can_be_excluded_from_decay(name):
    config = config_lib.default()
    config.optimizer.name = name
    config.optimizer.weight_decay = 0.1
    config.optimizer.decay_norms_and_biases = False
    params = {"kernel": np.ones((2, 2), np.float32), "scale": np.ones(2, np.float32)}
    optimizer = optimizers.create(config)
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert (np.asarray(updates["kernel"]) < 0).all()
    assert (np.asarray(updates["scale"]) == 0).all()


def test_clipping_comes_first_and_nesterov_needs_momentum():
    config = config_lib.default()
    config.optimizer.clip_norm, config.optimizer.weight_decay = 1.0, 0.0
    params = {"w": np.zeros(4, np.float32)}
    optimizer = optimizers.create(config)
    updates, _ = optimizer.update({"w": np.full(4, 10.0)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.01 * 0.5, rtol=1e-6)
    with pytest.raises(ConfigError, match="momentum above 0"):
        optimizers.OPTIMIZERS["sgd"].validate({"nesterov": True, "momentum": 0.0})


def test_initial_momentum_is_the_optimizers_own():
    config = config_lib.default()
    config.optimizer.momentum, config.optimizer.b1 = 0.5, 0.75
    for name, value in (("sgd", 0.5), ("adam", 0.75), ("adamw", 0.75)):
        config.optimizer.name = name
        assert optimizers.initial_momentum(config) == value
        state = optimizers.create(config).init({"w": np.ones(3, np.float32)})
        assert set(state.hyperparams) == {"lr", "momentum"}


def test_an_optimizer_without_momentum_has_only_a_learning_rate():
    try:

        @optimizers.optimizer
        def plain_descent(lr):
            return optax.scale_by_learning_rate(lr)

        config = config_lib.default()
        config.optimizer.name = "plain_descent"
        config.schedule.name, config.schedule.max_lr = "onecycle", 0.1
        config.schedule.interval = "step"
        assert optimizers.initial_momentum(config) is None
        assert set(RunSchedule(config, 10).epoch_values(0)) == {"lr"}
        params = {"w": np.ones(3, np.float32)}
        optimizer = optimizers.create(config)
        updates, state = optimizer.update(params, optimizer.init(params), params)
        assert set(state.hyperparams) == {"lr"}
        np.testing.assert_allclose(updates["w"], -0.01, rtol=1e-6)
        with pytest.raises(ConfigError, match="no parameter 'beta' to be its momentum"):
            optimizers.optimizer("other", momentum="beta")(plain_descent)
    finally:
        optimizers.OPTIMIZERS._entries.pop("plain_descent", None)
