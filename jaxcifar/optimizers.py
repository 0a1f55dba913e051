"""PyTorch's optimizers: one function each, whose signature declares the `optimizer.*` keys it uses.

Importing this does not import JAX: what an optimizer is made of (`gradient_transforms`) is imported
when it is created.
"""

from __future__ import annotations

import dataclasses
import typing

from jaxcifar.registry import Entry, Registry
from jaxcifar.spec import ConfigError, Fraction, NonNegativeFloat, PositiveFloat

if typing.TYPE_CHECKING:
    import optax
    from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerEntry(Entry):
    """A registered optimizer: a function of `lr` and its own parameters that returns an optax
    transformation. `momentum` names the parameter that a schedule may cycle.
    """

    momentum: str | None = None

    def __post_init__(self):
        if self.momentum and self.momentum not in self.parameters:
            raise ConfigError(
                f"the optimizer {self.name!r} has no parameter {self.momentum!r} to be its momentum"
            )


OPTIMIZERS = Registry(
    "optimizer",
    reserved=("lr",),
    required=("lr",),
    taken=("name", "clip_norm", "skip_nonfinite"),
    entry_type=OptimizerEntry,
)
optimizer = OPTIMIZERS.register


def create(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer that the config names, with gradient clipping to optimizer.clip_norm.

    Its hyperparameters `lr` and `momentum` (for Adam: beta1) are in its state,
    `opt_state.hyperparams`, where every training step sets them. `config.validate` has checked the
    config.
    """
    import optax

    from jaxcifar import gradient_transforms

    entry = OPTIMIZERS[config.optimizer.name]
    arguments = entry.arguments(config.optimizer)
    initial = {"lr": config.optimizer.lr}
    if entry.momentum:
        initial["momentum"] = arguments.pop(entry.momentum)

    def build(lr, momentum=None):
        scheduled = {entry.momentum: momentum} if entry.momentum else {}
        update = entry.function(lr=lr, **scheduled, **arguments)
        clip_norm = config.optimizer.clip_norm
        return (
            optax.chain(gradient_transforms.clip_by_global_norm(clip_norm), update)
            if clip_norm
            else update
        )

    return optax.inject_hyperparams(build)(**initial)


def initial_momentum(config: ConfigDict) -> float | None:
    """Returns the configured momentum, for Adam beta1; None if the optimizer has none."""
    entry = OPTIMIZERS[config.optimizer.name]
    return entry.arguments(config.optimizer).get(entry.momentum)


def _check_sgd(*, momentum: float, nesterov: bool, **_) -> None:
    if nesterov and not momentum:
        raise ConfigError("nesterov=True needs a momentum above 0")


@optimizer(momentum="momentum", check=_check_sgd)
def sgd(
    lr: float,
    *,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 5e-4,
    decay_norms_and_biases: bool = True,
) -> optax.GradientTransformation:
    """Returns `torch.optim.SGD`: the weight decay is added to the gradient, the momentum buffer is
    a running sum without dampening, the learning rate multiplies the buffer.

    Args:
        lr: learning rate.
        momentum: momentum.
        nesterov: use Nesterov momentum.
        weight_decay: weight decay, as in PyTorch.
        decay_norms_and_biases: also decay norms and biases, as PyTorch does (False: only parameters
            of rank 2 and more).
    """
    import optax

    from jaxcifar import gradient_transforms

    return optax.chain(
        gradient_transforms.add_decayed_weights(weight_decay, decay_norms_and_biases),
        optax.trace(momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(momentum="b1")
def adam(
    lr: float,
    *,
    b1: Fraction = 0.9,
    b2: Fraction = 0.999,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 5e-4,
    decay_norms_and_biases: bool = True,
) -> optax.GradientTransformation:
    """Returns `torch.optim.Adam` (Kingma & Ba 2015), its weight decay added to the gradient.

    Args:
        lr: learning rate.
        b1: decay of the gradient's moving average.
        b2: decay of the squared gradient's moving average.
        eps: added to the denominator.
        weight_decay: weight decay, as in PyTorch.
        decay_norms_and_biases: also decay norms and biases, as PyTorch does (False: only parameters
            of rank 2 and more).
    """
    import optax

    from jaxcifar import gradient_transforms

    return optax.chain(
        gradient_transforms.add_decayed_weights(weight_decay, decay_norms_and_biases),
        gradient_transforms.scale_by_adam(b1, b2, eps),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(momentum="b1")
def adamw(
    lr: float,
    *,
    b1: Fraction = 0.9,
    b2: Fraction = 0.999,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 5e-4,
    decay_norms_and_biases: bool = True,
) -> optax.GradientTransformation:
    """Returns `torch.optim.AdamW` (Loshchilov & Hutter 2019): Adam, with the parameters multiplied
    by 1 - lr · weight_decay. The arguments are `adam`'s.
    """
    import optax

    from jaxcifar import gradient_transforms

    return optax.chain(
        gradient_transforms.scale_by_adam(b1, b2, eps),
        optax.scale_by_learning_rate(lr),
        gradient_transforms.add_decoupled_weight_decay(lr, weight_decay, decay_norms_and_biases),
    )
