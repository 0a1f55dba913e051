"""The networks by name: one function each, whose signature declares the `model.*` keys it uses.

Importing this imports neither JAX nor Flax: a network is imported when it is created.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Literal

from jaxcifar import hub, spec
from jaxcifar.registry import Entry, Registry
from jaxcifar.spec import ConfigError, Fraction, NonNegativeInt, PositiveInt

if typing.TYPE_CHECKING:
    from flax import nnx
    from jax.typing import DTypeLike
    from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEntry(Entry):
    """A registered model: a function of `num_classes`, `rngs`, `dtype` and its own parameters that
    returns the network; of `image_size`, too, if it depends on that. See `create`.

    `head` is the attribute of its output layer, which pretrained weights for other classes do not
    fill; a model without it cannot start from any. `in_torchvision` says whether torchvision has
    the same network. `only_with` names parameters that have an effect only together with a value
    of another one: (its name, the value).
    """

    head: str = ""
    in_torchvision: bool = False
    only_with: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)

    def check_pretrained(self, pretrained: str) -> None:
        """Checks that the model can start from what `model.pretrained` names.

        Raises:
            ConfigError: it cannot.
        """
        is_for_resnets = pretrained == "torchvision" or pretrained.startswith(hub.PREFIX)
        if is_for_resnets and not self.in_torchvision:
            names = [name for name, entry in MODELS.items() if entry.in_torchvision]
            raise ConfigError(
                f"config.model.pretrained={pretrained!r} has no weights for model.name="
                f"{self.name!r}: set model.name to {' or '.join(map(repr, names))}, or "
                "model.pretrained to the work directory of a run, or to ''"
            )
        if pretrained and not self.head:
            raise ConfigError(
                f"config.model.pretrained={pretrained!r} needs to know the output layer of "
                f"model.name={self.name!r}: register the model with head=, the name of that "
                "layer's attribute, or leave model.pretrained at ''"
            )


_PASSED = ("num_classes", "rngs", "dtype")
MODELS = Registry(
    "model",
    reserved=(*_PASSED, "image_size"),  # that only to those that have it
    required=_PASSED,
    taken=("name", "pretrained"),
    entry_type=ModelEntry,
)
model = MODELS.register

HiddenSizes = Annotated[tuple[PositiveInt, ...], spec.nonempty]
DropoutRates = Annotated[tuple[Fraction, ...], spec.nonempty]


def create(
    name: str,
    *,
    num_classes: int,
    rngs: nnx.Rngs,
    dtype: DTypeLike = "float32",
    image_size: int = 32,
    **arguments,
) -> nnx.Module:
    """Returns a freshly initialized network, in training mode.

    The network maps normalized images, float32 [B, H, W, 3], to logits, float32 [B, num_classes].
    In training mode a call draws its dropout from the `rngs` it is passed; `model.eval()` turns
    dropout off and makes BatchNorm use its running statistics.

    Args:
        name: one of `MODELS`.
        num_classes: number of logits.
        rngs: the source of the initial parameters.
        dtype: what the layers compute in; parameters are float32.
        image_size: height and width of the images in pixels, for models that depend on it.
        **arguments: the model's own, such as `width`: those of its registered function, which
            --help lists, too. None stands for the default.

    Raises:
        ConfigError: there is no such model, or an argument is not valid.
    """
    import jax.numpy as jnp

    entry = MODELS[name]
    arguments = {key: value for key, value in arguments.items() if value is not None}
    for key in set(arguments) - set(entry.parameters):  # other models' keys may have their default
        if any(
            arguments[key] == e.parameters[key].default
            for e in MODELS.values()
            if key in e.parameters
        ):
            del arguments[key]
    entry.validate(arguments)
    if num_classes < 1:
        raise ConfigError(spec.invalid("num_classes", num_classes, "an integer, 1 or more"))
    passed = {"num_classes": num_classes, "rngs": rngs, "dtype": jnp.dtype(dtype)}
    return entry.call(arguments, **passed, image_size=image_size)


def from_config(config: ConfigDict, *, num_classes: int, rngs: nnx.Rngs) -> nnx.Module:
    """Returns the network that the config names, freshly initialized; see `create`."""
    arguments = MODELS[config.model.name].arguments(config.model)
    passed = {"num_classes": num_classes, "rngs": rngs, "dtype": config.dtype}
    return create(config.model.name, **passed, image_size=config.data.image_size, **arguments)


@model("simple_cnn", head="fc2")  # its own name would hide the module
def make_simple_cnn(
    *,
    num_classes: int,
    rngs: nnx.Rngs,
    dtype: DTypeLike,
    image_size: int = 32,
    width: NonNegativeInt = 0,
    dropout: Fraction = 0.5,
) -> nnx.Module:
    """Returns the study's first network; the size of its images must be a multiple of 8.

    Args:
        width: channels of the first layer (0: 32).
        dropout: dropout rate before the last layer.
    """
    from jaxcifar.models.simple_cnn import SimpleCNN

    if image_size % 8:
        raise ConfigError(
            f"simple_cnn cannot take images of {image_size} pixels: it halves them three times; "
            "set config.data.image_size to a multiple of 8"
        )
    return SimpleCNN(
        num_classes=num_classes,
        image_size=image_size,
        width=width or 32,
        dropout=dropout,
        rngs=rngs,
        dtype=dtype,
    )


def _check_resnet(*, head: str, head_hidden: tuple, head_dropout: tuple, **_) -> None:
    if head == "mlp" and len(head_dropout) != len(head_hidden) + 1:
        raise ConfigError(
            f"head_dropout={head_dropout!r} must have one more entry than "
            f"head_hidden={head_hidden!r} (the last is for the output layer)"
        )


def _register_resnet(name: str) -> None:
    @model(
        name,
        check=_check_resnet,
        head="fc",
        in_torchvision=True,
        only_with={"head_hidden": ("head", "mlp"), "head_dropout": ("head", "mlp")},
    )
    def make_resnet(
        *,
        num_classes: int,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        width: NonNegativeInt = 0,
        stem: Literal["cifar", "imagenet"] = "cifar",
        head: Literal["linear", "mlp"] = "linear",
        head_hidden: HiddenSizes = (512, 256),
        head_dropout: DropoutRates = (0.5, 0.3, 0.2),
    ) -> nnx.Module:
        """Returns torchvision's ResNet of this name, with the study's stem and head.

        Args:
            width: channels of the first stage (0: 64).
            stem: 3×3 without pooling ('cifar'), or 7×7 with stride 2 and a max-pool ('imagenet').
            head: one layer ('linear'), or several with BatchNorm, ReLU and dropout ('mlp').
            head_hidden: sizes of the mlp head's hidden layers.
            head_dropout: dropout rate before each of the mlp head's linear layers.
        """
        from jaxcifar.models import resnet

        block, depths = resnet.RESNETS[name]
        return resnet.ResNet(
            block=block,
            depths=depths,
            num_classes=num_classes,
            width=width or 64,
            stem=stem,
            head=head,
            head_hidden=head_hidden,
            head_dropout=head_dropout,
            rngs=rngs,
            dtype=dtype,
        )


for _name in ("resnet18", "resnet34", "resnet50"):
    _register_resnet(_name)


def _check_wide_resnet(*, depth: int, **_) -> None:
    if depth < 10 or depth % 6 != 4:
        raise ConfigError(
            f"depth={depth!r} is not valid: it must be 6n + 4 for n blocks in each of the three "
            "groups: 10, 16, 22, 28, 34, 40, ..."
        )


@model("wide_resnet", check=_check_wide_resnet, head="fc")
def make_wide_resnet(
    *,
    num_classes: int,
    rngs: nnx.Rngs,
    dtype: DTypeLike,
    depth: PositiveInt = 28,
    widen_factor: PositiveInt = 10,
    block_dropout: Fraction = 0.0,
) -> nnx.Module:
    """Returns WRN-depth-widen_factor (Zagoruyko & Komodakis 2016, arXiv:1605.07146).

    Args:
        depth: number of layers, 6n + 4.
        widen_factor: multiplies the three groups' channels (16, 32, 64).
        block_dropout: dropout rate between a block's two convolutions.
    """
    from jaxcifar.models.wide_resnet import WideResNet

    return WideResNet(
        num_classes=num_classes,
        depth=depth,
        widen_factor=widen_factor,
        block_dropout=block_dropout,
        rngs=rngs,
        dtype=dtype,
    )
