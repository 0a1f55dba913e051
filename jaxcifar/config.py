"""Every config key: its default, what it means and what it may be. Nothing else defines a key.

A config is an `ml_collections.ConfigDict`. An experiment file (`configs/*.py`) has one function,
`get_config()`, that starts from `default()` and says only what differs; the command line overrides
single keys on top (`--config.optimizer.lr=0.1`).
"""

import ast
import dataclasses
import difflib
import json
import math
import pathlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict, config_dict

CIFAR_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR_STD = (0.2675, 0.2565, 0.2761)
SCHEDULES = (
    "constant",
    "step",
    "multistep",
    "exponential",
    "cosine",
    "cosine_warm_restarts",
    "onecycle",
    "cyclic",
    "plateau",
)
CYCLIC_MODES = ("triangular", "triangular2", "exp_range")
PLATEAU_MODES = ("min", "max")
# What PyTorch has no default for either
_REQUIRED = {
    "step": "step_size",
    "multistep": "milestones",
    "exponential": "gamma",
    "cosine_warm_restarts": "T_0",
    "onecycle": "max_lr",
    "cyclic": "max_lr",
}


class ConfigError(ValueError):
    """A mistake of the user's: the message says what is wrong, what is valid and what to do."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key. `kind` is the type of its values; `check` returns whether a value is valid,
    `valid` says in words which are. A `default` of None is a placeholder: unset.
    """

    default: Any
    meaning: str
    valid: str = ""
    check: Callable[[Any], bool] = lambda value: True
    kind: type | None = None

    @property
    def type(self) -> type:
        return self.kind or type(self.default)


def _at_least(low: float) -> dict:
    return {"valid": f"{low} or more", "check": lambda value: value >= low}


def _more_than(low: float) -> dict:
    return {"valid": f"a number above {low}", "check": lambda value: value > low}


def _one_of(*names: str) -> dict:
    valid = "one of " + ", ".join(map(repr, names))
    return {"valid": valid, "check": lambda value: value in names}


def _each(count: int, low: float, high: float) -> dict:
    return {
        "valid": f"{count} numbers in [{low:g}, {high:g}]",
        "check": lambda v: len(v) == count and all(_is_number(x) and low <= x <= high for x in v),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_milestones(value: tuple) -> bool:
    return len(value) > 0 and all(_has_type(x, int) and x >= 0 for x in value)


_FRACTION = {"valid": "0 or more and less than 1", "check": lambda value: 0 <= value < 1}
_PROBABILITY = {"valid": "0 to 1", "check": lambda value: 0 <= value <= 1}
_OPEN_UNIT = {"valid": "between 0 and 1, both excluded", "check": lambda value: 0 < value < 1}

_RESNETS = ("resnet18", "resnet34", "resnet50")

SCHEMA: dict[str, Key] = {
    "seed": Key(42, "seed of everything random", "0 to 2**32 - 1", lambda v: 0 <= v < 2**32),
    "num_epochs": Key(5, "passes over the training images", **_at_least(1)),
    "batch_size": Key(128, "images in a training step, over all devices", **_at_least(1)),
    "dtype": Key(
        "float32",
        "what layers compute in; parameters and statistics are float32",
        **_one_of("float32", "bfloat16"),
    ),
    "steps_per_call": Key(
        0,
        "training steps that one device call makes (0: 1 on CPU, up to 64 elsewhere)",
        **_at_least(0),
    ),
    "data.name": Key(
        "cifar100", "the data set", **_one_of("cifar100", "cifar10", "synthetic100", "folder")
    ),
    "data.dir": Key(
        "", "tfds's data directory; for folder, the root of train/<class>/*, test/<class>/*"
    ),
    "data.archive": Key(
        "", "a CIFAR tar.gz on disk, '-binary' or '-python' form, or its folder ('': download)"
    ),
    "data.val_fraction": Key(0.2, "share of the training images held out", **_OPEN_UNIT),
    "data.mean": Key(CIFAR_MEAN, "subtracted from images in [0, 1], by channel", **_each(3, 0, 1)),
    "data.std": Key(CIFAR_STD, "then divided by, by channel", **_each(3, 1e-3, 10)),
    "data.limit": Key(0, "train on this many images, drawn by seed (0: all)", **_at_least(0)),
    "data.synthetic_size": Key(
        0, "synthetic100: N training and N/5 test images (0: 50,000 + 10,000)", **_at_least(0)
    ),
    "model.name": Key("simple_cnn", "the network", **_one_of("simple_cnn", *_RESNETS)),
    "model.width": Key(
        0, "channels of the first stage (0: the model's own, 32 or 64)", **_at_least(0)
    ),
    "model.dropout": Key(0.5, "dropout rate before simple_cnn's last layer", **_FRACTION),
    "model.stem": Key(
        "cifar",
        "a resnet's beginning: 3×3 without pool, or 7×7 with stride 2 and a max-pool",
        **_one_of("cifar", "imagenet"),
    ),
    "model.head": Key(
        "linear",
        "a resnet's end: one layer, or several with BatchNorm, ReLU and dropout",
        **_one_of("linear", "mlp"),
    ),
    "model.head_hidden": Key(
        (512, 256),
        "sizes of the mlp head's hidden layers",
        "one or more whole numbers above 0",
        lambda v: len(v) > 0 and all(_has_type(x, int) and x > 0 for x in v),
    ),
    "model.head_dropout": Key(
        (0.5, 0.3, 0.2),
        "dropout rates before each of the mlp head's linear layers",
        "numbers in [0, 1), one more than model.head_hidden has",
        lambda v: len(v) > 0 and all(_is_number(x) and 0 <= x < 1 for x in v),
    ),
    "model.pretrained": Key(
        "",
        "weights a resnet starts from: a directory made by scripts/port_torchvision.py, or "
        "'torchvision' (ImageNet's, downloaded on first use)",
    ),
    "augment": Key(
        "", "training images' transforms, such as 'random_crop(32, padding=4) | random_flip'"
    ),
    "mixup.prob": Key(0.0, "probability that a batch is mixed up", **_PROBABILITY),
    "mixup.alpha": Key(1.0, "of the Beta distribution of mixup's weight", **_more_than(0)),
    "cutmix.prob": Key(0.0, "probability that a batch is cut and mixed", **_PROBABILITY),
    "cutmix.alpha": Key(1.0, "of the Beta distribution of cutmix's area", **_more_than(0)),
    "loss.label_smoothing": Key(
        0.0, "share of a training target that is spread over all classes", **_FRACTION
    ),
    "optimizer.name": Key("sgd", "the optimizer", **_one_of("sgd", "adam", "adamw")),
    "optimizer.lr": Key(0.01, "learning rate, where the schedule starts", **_more_than(0)),
    "optimizer.momentum": Key(0.9, "sgd: momentum", **_FRACTION),
    "optimizer.nesterov": Key(False, "sgd: Nesterov's momentum"),
    "optimizer.b1": Key(0.9, "adam, adamw: decay of the gradient's mean", **_FRACTION),
    "optimizer.b2": Key(0.999, "adam, adamw: decay of the squared gradient's mean", **_FRACTION),
    "optimizer.eps": Key(1e-8, "adam, adamw: added to the denominator", **_more_than(0)),
    "optimizer.weight_decay": Key(5e-4, "weight decay, as PyTorch's optimizer", **_at_least(0)),
    "optimizer.decay_norms_and_biases": Key(
        True, "decay all parameters, as PyTorch; or only those of rank 2 and more"
    ),
    "optimizer.clip_norm": Key(
        0.0, "clip gradients to this global norm, as clip_grad_norm_ (0: no)", **_at_least(0)
    ),
    "schedule.name": Key("constant", "the learning-rate schedule", **_one_of(*SCHEDULES)),
    "schedule.interval": Key(
        "epoch", "what the schedule counts (plateau: its warm-up)", **_one_of("step", "epoch")
    ),
    "schedule.warmup": Key(
        0, "intervals of linear warm-up in front of the schedule, as LinearLR", **_at_least(0)
    ),
    "schedule.start_factor": Key(
        None,
        "warm-up: share of the schedule's first value that it starts with (1/3)",
        "above 0, at most 1",
        lambda value: 0 < value <= 1,
        float,
    ),
    "schedule.step_size": Key(
        None, "step: intervals between decays (required)", kind=int, **_at_least(1)
    ),
    "schedule.milestones": Key(
        None,
        "multistep: the intervals that decays come after (required)",
        "whole numbers, 0 or more, at least one of them",
        _are_milestones,
        tuple,
    ),
    "schedule.gamma": Key(
        None,
        "step, multistep: factor of a decay (0.1); exponential: of an interval (required); "
        "cyclic in mode 'exp_range': of an interval (1)",
        kind=float,
        **_more_than(0),
    ),
    "schedule.T_max": Key(
        None, "cosine: intervals until eta_min (to the end of the run)", kind=int, **_at_least(1)
    ),
    "schedule.T_0": Key(
        None,
        "cosine_warm_restarts: intervals to the first restart (required)",
        kind=int,
        **_at_least(1),
    ),
    "schedule.T_mult": Key(
        None,
        "cosine_warm_restarts: factor between two restarts' intervals (1)",
        kind=int,
        **_at_least(1),
    ),
    "schedule.eta_min": Key(
        None, "cosine, cosine_warm_restarts: lowest learning rate (0)", kind=float, **_at_least(0)
    ),
    "schedule.max_lr": Key(
        None, "onecycle, cyclic: highest learning rate (required)", kind=float, **_more_than(0)
    ),
    "schedule.steps_per_epoch": Key(
        None,
        "onecycle: its total_steps is num_epochs times this, less the warm-up (the intervals "
        "in an epoch)",
        kind=int,
        **_at_least(1),
    ),
    "schedule.pct_start": Key(
        None,
        "onecycle: share of the cycle in which the learning rate rises (0.3)",
        kind=float,
        **_OPEN_UNIT,
    ),
    "schedule.anneal_strategy": Key(
        None, "onecycle: shape of its phases ('cos')", kind=str, **_one_of("cos", "linear")
    ),
    "schedule.div_factor": Key(
        None, "onecycle: it starts at max_lr / div_factor (25)", kind=float, **_more_than(1)
    ),
    "schedule.final_div_factor": Key(
        None, "onecycle: it ends at its start / final_div_factor (1e4)", kind=float, **_more_than(1)
    ),
    "schedule.three_phase": Key(
        None, "onecycle: fall as fast as it rose, then anneal (False)", kind=bool
    ),
    "schedule.base_lr": Key(
        None, "cyclic: lowest learning rate (optimizer.lr)", kind=float, **_more_than(0)
    ),
    "schedule.step_size_up": Key(
        None, "cyclic: intervals of a rise (2000)", kind=int, **_at_least(1)
    ),
    "schedule.step_size_down": Key(
        None, "cyclic: intervals of a fall (step_size_up)", kind=int, **_at_least(1)
    ),
    "schedule.mode": Key(
        None,
        "cyclic: its shape ('triangular'); plateau: lower when val_loss is no longer falling, "
        "'min' (the default), or val_acc no longer rising, 'max'",
        kind=str,
        **_one_of(*CYCLIC_MODES, *PLATEAU_MODES),
    ),
    "schedule.cycle_momentum": Key(
        None,
        "onecycle, cyclic: momentum (for Adam: beta1) falls as the learning rate rises (True)",
        kind=bool,
    ),
    "schedule.base_momentum": Key(
        None, "lowest momentum: onecycle (0.85), cyclic (0.8)", kind=float, **_OPEN_UNIT
    ),
    "schedule.max_momentum": Key(
        None, "highest momentum: onecycle (0.95), cyclic (0.9)", kind=float, **_OPEN_UNIT
    ),
    "schedule.factor": Key(None, "plateau: factor of a decay (0.1)", kind=float, **_OPEN_UNIT),
    "schedule.patience": Key(
        None, "plateau: epochs without improvement that it lets pass (10)", kind=int, **_at_least(0)
    ),
    "schedule.threshold": Key(
        None, "plateau: the least improvement that counts (1e-4)", kind=float, **_at_least(0)
    ),
    "schedule.threshold_mode": Key(
        None,
        "plateau: whether threshold is a share of the best value ('rel')",
        kind=str,
        **_one_of("rel", "abs"),
    ),
    "schedule.cooldown": Key(
        None, "plateau: epochs after a decay that do not count (0)", kind=int, **_at_least(0)
    ),
    "schedule.min_lr": Key(None, "plateau: lowest learning rate (0)", kind=float, **_at_least(0)),
    "schedule.eps": Key(
        None, "plateau: the least decay that is made (1e-8)", kind=float, **_at_least(0)
    ),
    "early_stopping.patience": Key(
        0, "stop after this many epochs without a better val_acc (0: never)", **_at_least(0)
    ),
    "ema.decay": Key(
        0.0,
        "average the parameters, with this decay a step, and score the average (0: no)",
        **_FRACTION,
    ),
    "checkpoint.every_epochs": Key(1, "epochs between checkpoints", **_at_least(1)),
    "checkpoint.keep": Key(2, "how many of the last checkpoints stay", **_at_least(1)),
    "wandb.mode": Key(
        "auto",
        "auto: $WANDB_MODE if set, else online when a key is configured, else offline",
        **_one_of("auto", "online", "offline", "disabled"),
    ),
    "wandb.project": Key("jaxcifar", "Weights & Biases project"),
    "wandb.histogram_every": Key(
        0, "epochs between gradient histograms by layer (0: none)", **_at_least(0)
    ),
    "eval.batch_size": Key(1000, "images in an evaluation step", **_at_least(1)),
    "parallel.cpu_devices": Key(
        0, "virtual devices on a CPU (0: one, the fastest where measured)", **_at_least(0)
    ),
}

# Keys that act only where another has one of the values given: setting one elsewhere is a mistake.
_ACTS_ONLY_WITH = {
    "model.dropout": ("model.name", ("simple_cnn",)),
    "model.stem": ("model.name", _RESNETS),
    "model.head": ("model.name", _RESNETS),
    "model.pretrained": ("model.name", _RESNETS),
    "model.head_hidden": ("model.head", ("mlp",)),
    "model.head_dropout": ("model.head", ("mlp",)),
}

# Keys that say where things are, how often to save and when to stop, or that change only float
# rounding: a run may be resumed with other values of these.
_FREE_ON_RESUME = (
    "data.dir",
    "data.archive",
    "steps_per_call",
    "early_stopping.",
    "checkpoint.",
    "wandb.",
    "eval.",
    "parallel.",
)


def default() -> ConfigDict:
    """Returns a new config with every key at its default, locked against unknown keys."""
    config = ConfigDict()
    for name, key in SCHEMA.items():
        node = config
        *groups, leaf = name.split(".")
        for group in groups:
            if group not in node:
                node[group] = ConfigDict()
            node = node[group]
        node[leaf] = config_dict.placeholder(key.type) if key.default is None else key.default
    return config.lock()


def load(path: str) -> ConfigDict:
    """Returns what the experiment file's `get_config()` returns, validated.

    Raises:
        ConfigError: there is no such file, it fails to run, or what it returns is not valid.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ConfigError(f"--config: there is no file {path!r}; see configs/ for experiments")
    scope = {"__name__": file.stem, "__file__": str(file)}
    try:
        exec(compile(file.read_text(), str(file), "exec"), scope)  # a config is Python by design
        if "get_config" not in scope:
            raise ConfigError("get_config() is missing: a config file defines it")
        config = scope["get_config"]()
    except Exception as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f"{path}, line {line}" if line else path
        what = str(error).splitlines()[0] if str(error) else ""
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        raise ConfigError(f"{where}: {kind}{what}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{path}: get_config() returned {type(config).__name__}, not ConfigDict")
    validate(config)
    return config


def override(config: ConfigDict, name: str, text: str) -> None:
    """Sets the key `name` from the text of a command-line flag, in place.

    Raises:
        ConfigError: the key does not exist, or the text does not parse as its type.
    """
    if name not in SCHEMA:
        raise ConfigError(_unknown(name))
    kind = SCHEMA[name].type
    try:
        if kind is str:
            value = text
        elif kind is bool:
            value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif kind is tuple:
            value = ast.literal_eval(text)
            value = tuple(value) if isinstance(value, list | tuple) else (value,)
        else:
            value = kind(text)
    except (ValueError, KeyError, SyntaxError):
        raise ConfigError(_wrong(name, text)) from None
    _set(config, name, value)


def validate(config: ConfigDict) -> None:
    """Checks every key's presence, type and range, and what must hold between keys.

    Raises:
        ConfigError: naming the key, the value given and what is valid.
    """
    given = dict(_flatten(config))
    for name in given:
        if name not in SCHEMA:
            raise ConfigError(_unknown(name))
    for name, key in SCHEMA.items():
        if name not in given:
            raise ConfigError(f"config.{name} is missing: start from jaxcifar.config.default()")
        value = given[name]
        if value is None and key.default is None:
            continue
        if not _has_type(value, key.type) or not key.check(value):
            raise ConfigError(_wrong(name, value))
    if given["data.name"] == "folder" and not given["data.dir"]:
        raise ConfigError(
            "config.data.dir is empty: data.name='folder' needs the image folder's root, "
            "which holds train/<class>/* and test/<class>/*"
        )
    for name, (where, values) in _ACTS_ONLY_WITH.items():
        if given[name] != SCHEMA[name].default and given[where] not in values:
            raise ConfigError(
                f"config.{name}={given[name]!r} has no effect with {where}={given[where]!r}: "
                f"leave it at {SCHEMA[name].default!r}, or set {where} to "
                f"{' or '.join(map(repr, values))}"
            )
    if len(given["model.head_dropout"]) != len(given["model.head_hidden"]) + 1:
        raise ConfigError(
            f"config.model.head_dropout={given['model.head_dropout']!r} must have one rate more "
            f"than model.head_hidden={given['model.head_hidden']!r} has layers: the last is for "
            "the layer to the logits"
        )
    nesterov = given["optimizer.name"] == "sgd" and given["optimizer.nesterov"]
    if nesterov and not given["optimizer.momentum"]:
        raise ConfigError("config.optimizer.nesterov=True needs an optimizer.momentum above 0")
    if given["augment"]:
        from jaxcifar.augment import parse  # here: it imports this file

        try:
            parse(given["augment"])
        except ConfigError as error:
            raise ConfigError(f"config.{error}") from None
    if given["mixup.prob"] + given["cutmix.prob"] > 1:
        raise ConfigError(
            f"config.mixup.prob={given['mixup.prob']} and config.cutmix.prob="
            f"{given['cutmix.prob']} sum to more than 1: one draw decides between mixup, cutmix "
            "and neither"
        )
    _validate_schedule(given)


def _validate_schedule(given: dict[str, Any]) -> None:
    name = given["schedule.name"]
    required = f"schedule.{_REQUIRED[name]}" if name in _REQUIRED else None
    if required and given[required] is None:
        raise ConfigError(f"config.{required} is unset: schedule.name={name!r} needs it")
    modes = {"cyclic": CYCLIC_MODES, "plateau": PLATEAU_MODES}.get(name)
    mode = given["schedule.mode"]
    if modes and mode and mode not in modes:
        raise ConfigError(
            f"config.schedule.mode={mode!r} is not valid: for schedule.name={name!r} it must be "
            f"one of {', '.join(map(repr, modes))}"
        )


def check_arguments(group: str, **values: Any) -> None:
    """Checks a function's arguments as the config keys of the same name in `group`.

    Raises:
        ConfigError: naming the argument, the value given and what is valid.
    """
    for name, value in values.items():
        key = SCHEMA[f"{group}.{name}"]
        if not _has_type(value, key.type) or not key.check(value):
            raise ConfigError(_wrong(f"{group}.{name}", value, name))


def to_json(config: ConfigDict) -> str:
    """Returns the config as indented JSON; `from_json` reads it back."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Returns the config that `to_json` wrote; keys that are newer than it keep their default."""
    config = default()
    for name, value in _flatten(ConfigDict(json.loads(text))):
        if name in SCHEMA:
            _set(config, name, tuple(value) if isinstance(value, list | tuple) else value)
    return config


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns one line for each key that forbids resuming `old`'s run with `new`."""
    lines = []
    before, after = dict(_flatten(old)), dict(_flatten(new))
    for name in SCHEMA:
        grown = name == "num_epochs" and after[name] >= before[name]
        if before[name] != after[name] and not grown and not name.startswith(_FREE_ON_RESUME):
            lines.append(f"{name}: the run has {before[name]!r}, you asked for {after[name]!r}")
    return lines


def describe() -> str:
    """Returns one line for each key: its default, what it means and what it may be."""
    lines = []
    for name, key in SCHEMA.items():
        shown = "unset" if key.default is None else repr(key.default)
        valid = f" [{key.valid}]" if key.valid else ""
        lines.append(f"  --config.{name}={shown}\n      {key.meaning}{valid}")
    return "\n".join(lines)


def _flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items(preserve_field_references=False):
        if isinstance(value, ConfigDict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _set(config: ConfigDict, name: str, value: Any) -> None:
    *groups, leaf = name.split(".")
    node = config
    for group in groups:
        node = node[group]
    with node.ignore_type():  # validate() checks types, and says more
        node[leaf] = value


def _has_type(value: Any, kind: type) -> bool:
    if kind is float:
        return _is_number(value) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _wrong(name: str, value: Any, shown: str = "") -> str:
    key = SCHEMA[name]
    nouns = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a tuple"}
    noun = nouns.get(key.type, "a text")
    if not key.valid or key.valid.startswith(("a ", "one of")) or key.type is tuple:
        valid = key.valid or noun
    else:
        valid = f"{noun}, {key.valid}"
    shown = shown or f"config.{name}"
    return f"{shown}={value!r} is not valid: it must be {valid} ({key.meaning})"


def _unknown(name: str) -> str:
    members = [known for known in SCHEMA if known.startswith(f"{name}.")]
    if members:
        return f"config.{name} is a group, not a key; its keys are {', '.join(members)}"
    near = difflib.get_close_matches(name, SCHEMA, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "--help lists every key"
    return f"config.{name} does not exist; {hint}"
