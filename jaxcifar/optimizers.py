"""PyTorch's optimizers as optax transformations."""

import optax
from ml_collections import ConfigDict


def create(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer, its learning rate a hyperparameter that every step sets anew.

    SGD follows `torch.optim.SGD`: the decay is added to the gradient, the momentum buffer is a
    running sum without dampening, the learning rate multiplies the buffer.
    """
    given = config.optimizer

    def sgd(learning_rate: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(given.weight_decay),
            optax.sgd(learning_rate, given.momentum or None, nesterov=given.nesterov),
        )

    return optax.inject_hyperparams(sgd)(learning_rate=given.lr)
