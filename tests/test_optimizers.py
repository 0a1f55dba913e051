import json
import pathlib

import jax
import numpy as np
import pytest
from golden import make_optimizers

from jaxcifar import config as config_lib
from jaxcifar import hyperparameters, optimizers

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "optimizers.npz")


def params_after(name, arguments, clip_norm, one_cycle, dtype):
    """Returns our parameters after the recorded gradients, for a case of make_optimizers."""
    config = config_lib.default()
    given = config.optimizer
    given.name, given.clip_norm = name.lower(), clip_norm
    given.momentum = given.weight_decay = 0.0
    for key, value in arguments.items():
        if key == "betas":
            given.b1, given.b2 = value
        else:
            given[key] = value
    config.num_epochs = make_optimizers.STEPS
    if one_cycle:
        config.schedule.name = "onecycle"
        for key, value in make_optimizers.ONE_CYCLE.items():
            if key != "total_steps":
                config.schedule[key] = value
    schedule = hyperparameters.create(config, steps_per_epoch=1)

    start, grads = make_optimizers.recorded()
    optimizer = optimizers.create(config)

    @jax.jit
    def step(params, state, grads, values):
        state.hyperparams.update(values)
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(lambda p, u: p + u, params, updates), state

    with jax.enable_x64(dtype == np.float64):
        params = {key: value.astype(dtype) for key, value in start.items()}
        state = optimizer.init(params)
        for i, grad in enumerate(grads):
            values = {key: dtype(value(i)) for key, value in schedule.items()}
            grad = {key: value.astype(dtype) for key, value in grad.items()}
            params, state = step(params, state, grad, values)
        return {key: np.asarray(value, np.float64) for key, value in params.items()}


def error(found, expected):
    """Returns the largest difference, relative to each tensor's largest value."""
    return max(
        np.abs(found[key] - expected[key]).max() / np.abs(expected[key]).max() for key in expected
    )


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("index", range(len(GOLDEN["cases"])), ids=lambda i: GOLDEN["cases"][i])
def test_follows_pytorch_for_200_steps(index, dtype, limit):
    found = params_after(*json.loads(str(GOLDEN["cases"][index])), np.dtype(dtype).type)
    expected = {key: GOLDEN[f"{dtype}_{index}_{key}"] for key in make_optimizers.SHAPES}
    assert error(found, expected) <= limit


@pytest.mark.torch
def test_the_recorded_parameters_are_pytorchs():
    pytest.importorskip("torch")
    for index in (2, len(make_optimizers.CASES) - 1):
        found = make_optimizers.torch_params(*make_optimizers.CASES[index], "float32")
        expected = {key: GOLDEN[f"float32_{index}_{key}"] for key in make_optimizers.SHAPES}
        assert error(found, expected) <= 1e-7


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_can_be_left_undecayed(name):
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


def test_plain_sgd_keeps_no_buffer():
    config = config_lib.default()
    config.optimizer.momentum = 0.0
    params = {"w": np.ones(3, np.float32)}

    def arrays():
        return [x.shape for x in jax.tree.leaves(optimizers.create(config).init(params))]

    assert (3,) not in arrays()
    config.schedule.name = "onecycle"  # which sets a momentum of its own
    assert (3,) in arrays()
