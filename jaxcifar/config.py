"""The config: its keys, reading it from a file or the command line, checking and comparing it.

A config is an `ml_collections.ConfigDict`. An experiment file (`configs/*.py`) has one function,
`get_config()`, that starts from `default()` and sets only what differs; the command line overrides
individual keys (`--config.optimizer.lr=0.1`). Which keys there are, and what is valid, is
declared in `config_keys` and in the signatures that it reads.
"""

import hashlib
import json
import traceback
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxcifar import config_files, config_keys, spec
from jaxcifar.config_keys import GROUPS, Key
from jaxcifar.registry import suggest
from jaxcifar.spec import ConfigError

# Keys that say where things are, how often to save and when to stop, or that change only float
# rounding: a run may be resumed with other values of these.
_FREE_ON_RESUME = (
    "config_file",
    "config_sha256",
    "data.dir",
    "data.archive",
    "steps_per_call",
    "schedule.extend",
    "early_stopping.",
    "checkpoint.",
    "wandb.",
    "tensorboard",
    "eval.",
    "parallel.",
)


def default() -> ConfigDict:
    """Returns a new config with every key at its default, locked against unknown keys."""
    config = ConfigDict()
    for name, key in config_keys.all_keys().items():
        node = config
        *groups, leaf = name.split(".")
        for group in groups:
            if group not in node:
                node[group] = ConfigDict()
            node = node[group]
        if key.default is None or key.type is object:  # a plain value would fix the type
            node[leaf] = config_dict.FieldReference(key.default, field_type=key.type)
        else:
            node[leaf] = key.default
    return config.lock()


def load(path: str) -> ConfigDict:
    """Returns what the experiment file's `get_config()` returns, validated.

    The file is run as Python, so that it may register models, schedules, optimizers and transforms.

    Args:
        path: the file, or the name of one in ./configs or of jaxcifar's own, such as "part1".

    Raises:
        ConfigError: there is no such file, it fails to run, or what it returns is not valid.
    """
    config = read(path)
    validate(config)
    return config


def read(path: str) -> ConfigDict:
    """Returns what the experiment file's `get_config()` returns, not validated; see `load`."""
    file = config_files.find(path)
    if file is None:
        known = ", ".join(config_files.names())
        raise ConfigError(f"there is no config file {str(path)!r}; known by name: {known}")
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    filename = str(file.resolve())
    scope = {"__name__": file.stem, "__file__": filename}
    try:
        exec(compile(source, filename, "exec"), scope)  # a config is Python by design
        if "get_config" not in scope:
            raise ConfigError("get_config() is missing: a config file defines it")
        config = scope["get_config"]()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == filename]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f"{file}, line {line}" if line else str(file)
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        raise ConfigError(f"{where}: {kind}{spec.first_line(error)}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{file}: get_config() returned {type(config).__name__}, not ConfigDict")
    if isinstance(config, config_dict.FrozenConfigDict):
        config = ConfigDict(config)
    if "config_file" in config:  # else validate() reports that keys are missing
        config.config_file = config_files.portable(file)
        # Of this file and of the one that it has loaded the config from, if any
        source += config.config_sha256.encode()
        config.config_sha256 = hashlib.sha256(source).hexdigest()
    return config


def override(config: ConfigDict, name: str, text: str) -> None:
    """Sets a key from a string, as on a command line, in place.

    Args:
        config: the config to change.
        name: the key, such as "optimizer.lr".
        text: its value, such as "0.1"; `validate` checks the range.

    Raises:
        ConfigError: the key does not exist, or the string does not parse as its type.
    """
    key = config_keys.all_keys().get(name)
    if key is None or key.is_internal:
        raise _unknown_key(name)
    try:
        value = spec.from_text(key.annotation, text)
    except ValueError:
        raise ConfigError(key.invalid_message(f"config.{name}", text)) from None
    _set(config, name, value)


def validate(config: ConfigDict) -> None:
    """Checks every key's presence, type and range, and what must hold between keys.

    Raises:
        ConfigError: naming the key, the value and what is valid.
    """
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"the config is {config!r}, not a ConfigDict: start from jaxcifar.config.default()"
        )
    try:
        values = dict(_flatten(config))
    except RecursionError:
        raise ConfigError("the config contains itself") from None
    keys = config_keys.all_keys()
    for name in values:
        if name not in keys:
            raise _unknown_key(name)
    for name, key in keys.items():
        if name not in values:
            if key.owners:  # of a function registered after the config was made: it is unset
                continue
            raise ConfigError(f"config.{name} is missing: start from jaxcifar.config.default()")
        if not (values[name] is None and key.default is None) and not key.accepts(values[name]):
            raise ConfigError(key.invalid_message(f"config.{name}", values[name]))
    for group in GROUPS:
        _validate_group(group, config, keys)
    GROUPS["model"].registry[config.model.name].check_pretrained(config.model.pretrained)
    if config.seed + config.num_seeds > 2**32:
        raise ConfigError(
            f"config.num_seeds={config.num_seeds} is too many: the last seed is 2**32 - 1"
        )
    if config.mixup.prob + config.cutmix.prob > 1:
        raise ConfigError(
            f"config.mixup.prob={config.mixup.prob} and config.cutmix.prob={config.cutmix.prob} "
            "sum to more than 1: one draw decides between mixup, cutmix and neither"
        )
    _validate_processes(config.parallel)
    if config.loss.consistency and config.mixup.prob + config.cutmix.prob:
        raise ConfigError(
            f"config.loss.consistency={config.loss.consistency} compares views of one image: set "
            "mixup.prob and cutmix.prob to 0"
        )
    if config.augment or config.loss.consistency:
        from jaxcifar import augment  # here: it imports JAX

        parse = augment.parse_views if config.loss.consistency else augment.parse
        try:
            parse(config.augment)
        except ConfigError as error:
            raise ConfigError(f"config.{error}") from None


def to_json(config: ConfigDict) -> str:
    """Returns the config as indented JSON."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_dict(values: dict[str, Any]) -> ConfigDict:
    """Returns the config of which `values` is the `to_dict()`, possibly read from JSON. Keys that
    it lacks keep their default, and those that are not known here (a config file's own) are
    ignored.
    """
    config = default()
    keys = config_keys.all_keys()
    for name, value in _flatten(ConfigDict(values)):
        if name in keys:
            _set(config, name, _to_tuples(value))
    return config


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns one line for each key that forbids resuming `old`'s run with `new`."""
    lines = []
    before, after = _effective_values(old), _effective_values(new)
    for name in before | after:
        may_differ = name.startswith(_FREE_ON_RESUME) or (
            name == "num_epochs" and after[name] >= before[name]
        )
        values = before.get(name), after.get(name)
        if values[0] != values[1] and not may_differ:
            lines.append(f"{name}: the run has {values[0]!r}, you asked for {values[1]!r}")
    return lines


def changes(config: ConfigDict) -> dict[str, Any]:
    """Returns the values that differ from the defaults, by key, such as "optimizer.lr"."""
    values, defaults = dict(_flatten(config)), dict(_flatten(default()))
    return {
        name: values[name]
        for name, key in config_keys.all_keys().items()
        if not key.is_internal and name in values and values[name] != defaults[name]
    }


def describe(config: ConfigDict | None = None) -> str:
    """Returns for each key a line with its value in the config (default: its default), and below
    what it means and what is valid.
    """
    values = dict(_flatten(config or default()))
    lines = []
    for name, key in config_keys.all_keys().items():
        if not key.is_internal:
            value = "unset" if values[name] is None else repr(values[name])
            lines.append(f"  --config.{name}={value}")
            lines += [f"      {line}" for line in key.help()]
    return "\n".join(lines)


def _validate_group(group: str, config: ConfigDict, keys: dict[str, Key]) -> None:
    """Checks the settings of what the config names in a group, such as its schedule."""
    name, values = config[group].name, config[group]
    entry = GROUPS[group].registry[name]
    for parameter, declared in entry.parameters.items():
        value, default = values.get(parameter), keys[f"{group}.{parameter}"].default
        is_unset = value is None or (value == default and not declared.accepts(value))
        if declared.is_required and is_unset:
            raise ConfigError(
                f"config.{group}.{parameter} is unset: {group}.name={name!r} needs it "
                f"({declared.meaning}; {declared.valid})"
            )
    entry.validate(entry.arguments(values), f"config.{group}.")
    for parameter, (other, value) in getattr(entry, "only_with", {}).items():
        default = entry.parameters[parameter].default
        if values.get(parameter) not in (None, default) and values[other] != value:
            raise ConfigError(
                f"config.{group}.{parameter}={values[parameter]!r} has no effect with "
                f"{group}.{other}={values[other]!r}: leave it at {default!r}, or set "
                f"{group}.{other} to {value!r}"
            )
    if not GROUPS[group].refuses_unused:
        return
    for key_name, key in keys.items():
        parameter = key_name.removeprefix(f"{group}.")
        if parameter == key_name or not key.owners or name in key.owners:
            continue
        value, defaults = values.get(parameter), [p.default for p in key.declarations.values()]
        if value is not None and value not in defaults:
            raise ConfigError(
                f"config.{key_name}={value!r} has no effect with {group}.name={name!r}: leave it "
                f"at {key.default!r}, or set {group}.name to {' or '.join(map(repr, key.owners))}"
            )


def _validate_processes(parallel: ConfigDict) -> None:
    """Checks that the settings of several processes are complete."""
    unset = {"coordinator": "", "num_processes": 0, "process_id": -1}
    is_set = {name: parallel[name] != value for name, value in unset.items()}
    names = [f"parallel.{name}" for name in unset if is_set[name]]
    if names and not parallel.distributed:
        raise ConfigError(
            f"config.{names[0]}={parallel[names[0][9:]]!r} has no effect with "
            "parallel.distributed=False: set that to True"
        )
    if names and not all(is_set.values()):
        missing = [f"parallel.{name}" for name in unset if not is_set[name]]
        raise ConfigError(
            f"config.{missing[0]} is unset: with {' and '.join(names)}, set "
            f"{' and '.join(missing)} too, or none of the three where JAX finds the processes by "
            "itself (SLURM, Open MPI, Kubernetes)"
        )
    if names and parallel.process_id >= parallel.num_processes:
        raise ConfigError(
            f"config.parallel.process_id={parallel.process_id} is not valid: it must be less than "
            f"parallel.num_processes={parallel.num_processes}; the first process is 0"
        )


def _effective_values(config: ConfigDict) -> dict[str, Any]:
    """Returns the values of the config's own keys, and the arguments of the functions it names."""
    values = dict(_flatten(config))
    keys = config_keys.all_keys()
    effective = {name: values[name] for name, key in keys.items() if not key.owners}
    for group in GROUPS:
        name = config[group].name
        if name in GROUPS[group].registry:
            arguments = GROUPS[group].registry[name].arguments(config[group])
            effective |= {f"{group}.{key}": value for key, value in arguments.items()}
    return effective


def _to_tuples(value: Any) -> Any:
    """Returns a value from JSON with tuples in place of its lists."""
    return tuple(map(_to_tuples, value)) if isinstance(value, list | tuple) else value


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
    with node.ignore_type():  # validate() checks types, with better messages
        node[leaf] = value


def _unknown_key(name: str) -> ConfigError:
    names = [known for known, key in config_keys.all_keys().items() if not key.is_internal]
    members = [known for known in names if known.startswith(f"{name}.")]
    if members:
        return ConfigError(
            f"config.{name} is a group, not a key; its keys are {', '.join(members)}"
        )
    if near := suggest(name, names, count=3, cutoff=0.5):
        return ConfigError(f"config.{name} does not exist; did you mean {' or '.join(near)}?")
    return ConfigError(f"config.{name} does not exist", command_hint="--help lists all keys")
