import numpy as np
import pytest

from jaxcifar import config as config_lib
from jaxcifar import optimizers


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_pytorchs_formula(nesterov):
    """The update of torch.optim.SGD's documentation, written out in float64."""
    config = config_lib.default()
    config.optimizer.nesterov = nesterov
    config.optimizer.weight_decay = 0.1
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=5).astype(np.float32)}
    expected, buffer = params["w"].astype(np.float64), 0.0
    optimizer = optimizers.create(config)
    state = optimizer.init(params)
    for lr in (0.1, 0.1, 0.05):
        grads = {"w": rng.normal(size=5).astype(np.float32)}
        state.hyperparams["learning_rate"] = np.float32(lr)
        updates, state = optimizer.update(grads, state, params)
        params = {"w": params["w"] + updates["w"]}
        decayed = grads["w"] + 0.1 * expected
        buffer = 0.9 * buffer + decayed
        expected = expected - lr * (decayed + 0.9 * buffer if nesterov else buffer)
        np.testing.assert_allclose(params["w"], expected, rtol=1e-6, atol=1e-6)
