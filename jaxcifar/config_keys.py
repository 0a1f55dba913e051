"""The config's keys: their defaults, what they mean and what is valid.

Keys of the config itself are defined here. Those of models, optimizers, schedules and datasets are
the parameters of the registered functions: `schedule.name` names a schedule, and every parameter of
a schedule is a key `schedule.<parameter>`.
"""

import dataclasses
import functools
import operator
from typing import Annotated, Any, Literal

from jaxcifar import hub, spec
from jaxcifar.data import CIFAR_MEAN, CIFAR_STD, DATASETS
from jaxcifar.models import MODELS
from jaxcifar.optimizers import OPTIMIZERS
from jaxcifar.registry import Registry
from jaxcifar.schedules import SCHEDULES
from jaxcifar.spec import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    OpenFraction,
    Parameter,
    PositiveFloat,
    PositiveInt,
    Probability,
)

Seed = Annotated[
    int, spec.described("an integer from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32)
]


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return not text or (bool(host) and port.isdecimal() and 0 < int(port) < 2**16)


_CONFIG_KEYS = {
    "seed": Parameter(Seed, 42, "random seed"),
    "num_seeds": Parameter(
        PositiveInt, 1, "train this many runs, with the seeds seed, seed + 1, ..."
    ),
    "num_epochs": Parameter(PositiveInt, 5, "passes over the training images"),
    "batch_size": Parameter(
        Annotated[int, spec.between(1, 2**31 - 1)],
        128,
        "images in a training step, over all devices",
    ),
    "dtype": Parameter(
        Literal["float32", "bfloat16"],
        "float32",
        "compute dtype of the layers; parameters and statistics are float32",
    ),
    "steps_per_call": Parameter(
        NonNegativeInt,
        0,
        "training steps per device call (0: 1 on CPU, up to 64 elsewhere)",
    ),
    "data.image_size": Parameter(
        Annotated[int, spec.between(8, 512)],
        32,
        "height and width of the images in pixels; folders are resized to it (CIFAR's are 32)",
    ),
    "data.split": Parameter(
        Literal["auto", "random", "stratified"],
        "auto",
        "how a validation set is split off: at random over all images, or over each class "
        "(auto: stratified for folders, else random)",
    ),
    "data.val_fraction": Parameter(
        OpenFraction, 0.2, "fraction of the training images held out, where there is no val folder"
    ),
    "data.mean": Parameter(
        tuple[Probability, Probability, Probability],
        CIFAR_MEAN,
        "per-channel mean, subtracted from images in [0, 1]",
    ),
    "data.std": Parameter(
        tuple[(Annotated[float, spec.between(1e-3, 10)],) * 3],
        CIFAR_STD,
        "per-channel divisor after that",
    ),
    "data.limit": Parameter(
        NonNegativeInt, 0, "train on this many images, a random subset chosen by seed (0: all)"
    ),
    "model.pretrained": Parameter(
        Annotated[str, spec.described(hub.FORMS, hub.is_valid)],
        "",
        "weights to start from: a run's work directory (its best model); for a resnet also a "
        "directory made by python -m jaxcifar.port, 'torchvision' (ImageNet's), or a repository "
        "on the Hugging Face hub; the output layer is new for another number of classes, or for "
        "other classes than the run's",
    ),
    "augment": Parameter(
        str, "", "transforms of training images, such as 'random_crop(32, padding=4) | random_flip'"
    ),
    "mixup.prob": Parameter(Probability, 0.0, "probability that mixup is applied to a batch"),
    "mixup.alpha": Parameter(PositiveFloat, 1.0, "mixup's weight is drawn from Beta(alpha, alpha)"),
    "cutmix.prob": Parameter(Probability, 0.0, "probability that cutmix is applied to a batch"),
    "cutmix.alpha": Parameter(PositiveFloat, 1.0, "cutmix's area is drawn from Beta(alpha, alpha)"),
    "loss.label_smoothing": Parameter(
        Fraction, 0.0, "fraction of each training target that is spread evenly over all classes"
    ),
    "loss.consistency": Parameter(
        NonNegativeFloat,
        0.0,
        "weight of the Jensen-Shannon divergence between the predictions for an image without "
        "augmix and with two draws of it (AugMix uses 12; 0: off)",
    ),
    "optimizer.lr": Parameter(
        PositiveFloat, 0.01, "base learning rate (onecycle and cyclic use max_lr instead)"
    ),
    "optimizer.clip_norm": Parameter(
        NonNegativeFloat, 0.0, "clip gradients to this global norm, as clip_grad_norm_ (0: off)"
    ),
    "optimizer.skip_nonfinite": Parameter(
        NonNegativeInt,
        0,
        "skip steps whose loss or gradients are not finite; stop after this many in a row (0: off)",
    ),
    "schedule.interval": Parameter(
        Literal["step", "epoch"],
        "epoch",
        "unit of the schedule's lengths (plateau decides once an epoch: of its warm-up)",
    ),
    "schedule.warmup": Parameter(
        NonNegativeInt, 0, "intervals of linear warm-up before the schedule, like LinearLR"
    ),
    "schedule.extend": Parameter(
        Literal["respan", "hold"],
        "respan",
        "in a run extended by a larger num_epochs: span all of it, or keep to the plan for the "
        "length before, and then hold its last value",
    ),
    "schedule.start_factor": Parameter(
        Annotated[float, spec.between(0, 1, "right")],
        None,
        "the warm-up starts at this fraction of the schedule's first value (default 1/3)",
    ),
    "schedule.steps_per_epoch": Parameter(
        PositiveInt,
        None,
        "onecycle: intervals in an epoch that total_steps assumes (default: the actual number)",
    ),
    "schedule.cycle_momentum": Parameter(
        bool,
        None,
        "whether the schedule cycles the momentum (for Adam: beta1) too, if it can (default True)",
    ),
    "early_stopping.patience": Parameter(
        NonNegativeInt, 0, "stop after this many epochs without a better val_acc (0: never)"
    ),
    "ema.decay": Parameter(
        Fraction,
        0.0,
        "decay of the parameters' exponential moving average, which is then scored (0: off)",
    ),
    "checkpoint.every_epochs": Parameter(PositiveInt, 1, "epochs between checkpoints"),
    "checkpoint.every_steps": Parameter(
        NonNegativeInt, 0, "steps between further checkpoints, also within an epoch (0: none)"
    ),
    "checkpoint.every_seconds": Parameter(
        NonNegativeFloat, 0.0, "seconds between further checkpoints (0: none)"
    ),
    "checkpoint.keep": Parameter(PositiveInt, 2, "number of recent checkpoints to keep"),
    "wandb.mode": Parameter(
        Literal["auto", "online", "offline", "disabled"],
        "auto",
        "auto: $WANDB_MODE if set, else online if an API key is configured, else offline",
    ),
    "wandb.project": Parameter(str, "jaxcifar", "Weights & Biases project"),
    "wandb.histogram_every": Parameter(
        NonNegativeInt, 0, "epochs between histograms of parameters and gradients (0: none)"
    ),
    "tensorboard": Parameter(bool, False, "also log to TensorBoard, in <workdir>/tensorboard"),
    "eval.batch_size": Parameter(PositiveInt, 1000, "images in an evaluation step"),
    "eval.ood_dir": Parameter(
        str,
        "",
        "corruption benchmark to score at the end ('': none; generate: that of the test images; "
        "else its directory)",
    ),
    "parallel.cpu_devices": Parameter(
        Annotated[int, spec.between(0, 256)],
        0,
        "virtual devices on a CPU, in each process (0: one, the fastest measured)",
    ),
    "parallel.distributed": Parameter(
        bool,
        False,
        "train in several processes, which JAX finds under SLURM, Open MPI and Kubernetes",
    ),
    "parallel.coordinator": Parameter(
        Annotated[str, spec.described("host:port, or ''", _is_address)],
        "",
        "elsewhere: where process 0 listens for the others",
    ),
    "parallel.num_processes": Parameter(NonNegativeInt, 0, "with coordinator: how many there are"),
    "parallel.process_id": Parameter(
        Annotated[int, spec.at_least(-1)], -1, "with coordinator: which of them this is, from 0"
    ),
}

# Set when a config is loaded from a file or a run begins, not by users.
_INTERNAL_KEYS = {
    "config_file": Parameter(str, "", "the config file"),
    "config_sha256": Parameter(str, "", "its sha256"),
    "pretrained_sha256": Parameter(str, "", "that of the weights from the Hugging Face hub"),
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Keys that come from the functions in a registry; `<group>.name` names one of these.

    If the group `refuses_unused` keys, setting one that the named function does not have is an
    error. If it is `unset_by_default` all its keys are, otherwise only those whose functions differ
    in their default.
    """

    registry: Registry
    default: str
    meaning: str
    refuses_unused: bool = False
    unset_by_default: bool = False


GROUPS = {
    "data": Group(DATASETS, "cifar100", "the dataset"),
    "model": Group(MODELS, "simple_cnn", "the network", refuses_unused=True),
    "optimizer": Group(OPTIMIZERS, "sgd", "the optimizer"),
    "schedule": Group(SCHEDULES, "constant", "the learning-rate schedule", unset_by_default=True),
}


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key; a default of None means that it is unset.

    `declarations` maps each function that has the parameter to its declaration; for a key of the
    config itself, "".
    """

    default: Any
    declarations: dict[str, Parameter]
    is_internal: bool = False

    @property
    def owners(self) -> list[str]:
        """The functions that use it; empty for a key of the config itself."""
        return [name for name in self.declarations if name]

    @property
    def annotation(self) -> Any:
        """The union of the declared types."""
        return functools.reduce(operator.or_, [p.annotation for p in self.declarations.values()])

    @property
    def type(self) -> type:
        """The type of its values, or object if there are several."""
        return spec.only_type(self.annotation)

    def accepts(self, value: Any) -> bool:
        """Returns whether a value is valid for any of its functions."""
        return spec.accepts(self.annotation, value)

    def invalid_message(self, name: str, value: Any) -> str:
        """Returns the message about a value that is not valid."""
        texts = dict.fromkeys(parameter.valid for parameter in self.declarations.values())
        meanings = dict.fromkeys(parameter.meaning for parameter in self.declarations.values())
        return spec.invalid(name, value, ", or ".join(texts)) + f" ({'; or '.join(meanings)})"

    def help(self) -> list[str]:
        """Returns lines that say what it means and what is valid."""
        owners_by_text: dict[str, list[str]] = {}
        for owner, parameter in self.declarations.items():
            text = f"{parameter.meaning}{self._default_text(owner)} [{parameter.valid}]"
            owners_by_text.setdefault(text, []).append(owner)
        return [
            f"{', '.join(owners)}: {text}" if any(owners) else text
            for text, owners in owners_by_text.items()
        ]

    def _default_text(self, owner: str) -> str:
        if not owner or self.default is not None:
            return ""
        default = self.declarations[owner].default
        if default is spec.REQUIRED:
            return " (required)"
        return "" if default is None else f" (default {default!r})"


def all_keys() -> dict[str, Key]:
    """Returns every key by name, those of functions that config files have registered included."""
    keys = {}
    for name, parameter in _CONFIG_KEYS.items():
        group = name.partition(".")[0]
        if group in GROUPS and f"{group}.name" not in keys:
            keys |= _group_keys(group)
        keys[name] = Key(parameter.default, {"": parameter})
    internal = {
        name: Key(p.default, {"": p}, is_internal=True) for name, p in _INTERNAL_KEYS.items()
    }
    return keys | internal


def _group_keys(group: str) -> dict[str, Key]:
    registry = GROUPS[group].registry
    names = Parameter(Literal[tuple(registry)], GROUPS[group].default, GROUPS[group].meaning)
    keys = {f"{group}.name": Key(names.default, {"": names})}
    for parameter in dict.fromkeys(
        name for entry in registry.values() for name in entry.parameters
    ):
        declarations = {
            owner: entry.parameters[parameter]
            for owner, entry in registry.items()
            if parameter in entry.parameters
        }
        # Functions may share one description, as AdamW does with Adam.
        meaning = next((p.meaning for p in declarations.values() if p.meaning), "")
        declarations = {
            owner: p if p.meaning else dataclasses.replace(p, meaning=meaning)
            for owner, p in declarations.items()
        }
        shared = None if GROUPS[group].unset_by_default else _shared_default(declarations)
        keys[f"{group}.{parameter}"] = Key(shared, declarations)
    return keys


def _shared_default(declarations: dict[str, Parameter]) -> Any:
    """Returns the default that all functions share, or None: where they differ, and where one
    requires the parameter, so that a value of the shared default can be told from an unset one.
    """
    defaults = {(type(p.default), p.default) for p in declarations.values() if not p.is_required}
    if len(defaults) != 1:
        return None
    _, default = defaults.pop()
    is_set = any(p.is_required and p.accepts(default) for p in declarations.values())
    return None if is_set else default
