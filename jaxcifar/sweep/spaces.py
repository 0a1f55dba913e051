"""The spaces that a sweep searches: `optimizer.lr=log(1e-4, 1e-1)`, `model.width=int(8, 64)`.

A space is one Python expression. Python's parser reads it, and nothing is evaluated but literals.
"""

import ast
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import spec
from jaxcifar.config_keys import all_keys
from jaxcifar.spec import ConfigError

SYNTAX = "log(a, b), uniform(a, b), int(a, b) or choice(x, y, ...)"
EXAMPLE = "'optimizer.lr=log(1e-4, 1e-1)'"
MAX_COMBINATIONS = 256  # of choices that are tried to find a valid config

Parameter = float | int | str  # as Optuna keeps it; of a choice, its text on the command line


@dataclasses.dataclass(frozen=True)
class Space:
    """The values that are tried for one key: an interval of numbers, both ends included, or
    choices.
    """

    key: str
    text: str  # normalized, so that spaces can be compared
    low: float = 0
    high: float = 0
    is_integer: bool = False
    is_log: bool = False
    choices: tuple[str, ...] = ()

    def suggest(self, trial: Any) -> Parameter:
        """Returns the value that an `optuna.Trial` gets."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        suggest = trial.suggest_int if self.is_integer else trial.suggest_float
        return suggest(self.key, self.low, self.high, log=self.is_log)

    def ends(self) -> tuple[str, ...]:
        """Returns the values that must be valid, as texts: the choices, or both ends."""
        return self.choices or (to_text(self.low), to_text(self.high))

    def locate(self, config: ConfigDict) -> Parameter:
        """Returns the parameter that stands for the config's own value.

        Raises:
            ConfigError: the value is not in the space.
        """
        value = value_of(config, self.key)
        for choice in self.choices:
            other = value_of(with_values(config, {self.key: choice}), self.key)
            if type(other) is type(value) and other == value:
                return choice
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not self.choices and self.low <= value <= self.high:
            if not self.is_integer:
                return float(value)
            if value == int(value):
                return int(value)
        is_unset = value is None
        raise ConfigError(
            f"the config's {self.key} is {'unset' if is_unset else repr(value)}, which is not in "
            f"{self.text}: the first trial is the config itself, so "
            + ("" if is_unset else "widen the space, or ")
            + f"set a value in it with --config.{self.key}=VALUE"
        )


def parse(arguments: Sequence[str], config: ConfigDict) -> dict[str, Space]:
    """Returns the spaces by key.

    Args:
        arguments: such as "optimizer.lr=log(1e-4, 1e-1)".
        config: the config whose keys they are; the space of a key has to hold its value.

    Raises:
        ConfigError: a space cannot be read, its key does not exist or is repeated, or a value in
            it is not valid.
    """
    if not arguments:
        raise ConfigError(f"no spaces to search: add KEY=SPACE, such as {EXAMPLE} ({SYNTAX})")
    spaces: dict[str, Space] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"{argument!r} is not KEY=SPACE; write it like {EXAMPLE}")
        if name in spaces:
            raise ConfigError(f"{name} has two spaces; leave one out")
        spaces[name] = read(name, text)
    for space in spaces.values():
        for text in space.ends():
            _check(space, text, spaces, config)
        space.locate(config)
    return spaces


def read(name: str, text: str) -> Space:
    """Returns the space of one key; its values are not checked.

    Raises:
        ConfigError: the key does not exist, or the space cannot be read.
    """
    key = all_keys().get(name)
    if key is None or key.is_internal:
        config_lib.override(config_lib.default(), name, text)  # raises the error
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        node = None
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if not is_call or node.func.id not in ("log", "uniform", "int", "choice"):
        raise ConfigError(f"{name}={text} is not a space; write {SYNTAX}, such as {EXAMPLE}")
    kind, given = node.func.id, f"{name}={text.strip()}"
    if node.keywords:
        raise ConfigError(f"{given}: {kind} takes values only, without names")
    values = [_read_value(argument, given) for argument in node.args]
    normalized = f"{kind}({', '.join(map(repr, values))})"
    if kind == "choice":
        choices = tuple(map(to_text, values))
        if not choices or len(set(choices)) < len(choices):
            raise ConfigError(f"{given}: choice needs one value or more, each only once")
        return Space(name, normalized, choices=choices)
    if len(values) != 2 or not all(type(value) in (int, float) for value in values):
        raise ConfigError(f"{given}: {kind} needs two numbers, {kind}(a, b)")
    low, high = values
    has_integers = all(type(value) is int for value in values)
    takes_floats = spec.accepts(key.annotation, 0.5) or not spec.accepts(key.annotation, 1)
    if kind == "int" and not has_integers:
        raise ConfigError(f"{given}: int needs two integers")
    if not low < high:
        raise ConfigError(f"{given}: {kind}(a, b) needs a < b")
    if kind == "log" and not low > 0:
        raise ConfigError(f"{given}: log(a, b) needs a > 0")
    if kind == "uniform" and key.type is int:
        raise ConfigError(f"{given}: {name} is an integer; write int({low:.0f}, {high:.0f})")
    is_integer = kind == "int" or (kind == "log" and has_integers and key.type is int)
    if not is_integer and takes_floats:
        low, high = float(low), float(high)
    return Space(name, normalized, low, high, is_integer, is_log=kind == "log")


def with_values(config: ConfigDict, parameters: Mapping[str, Parameter]) -> ConfigDict:
    """Returns a copy of the config with other values of some keys; it is not validated.

    Raises:
        ConfigError: a value does not parse as its key's type.
    """
    config = config_lib.from_dict(config.to_dict())
    for name, value in parameters.items():
        config_lib.override(config, name, to_text(value))
    return config


def value_of(config: ConfigDict, key: str) -> Any:
    """Returns a config's value by its dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


def to_text(value: Any) -> str:
    """Returns a value as the command line takes it."""
    return value if isinstance(value, str) else repr(value)


def _read_value(node: ast.expr, given: str) -> Any:
    if isinstance(node, ast.Name):  # choice(sgd, adamw): the shell has eaten the quotes
        return node.id
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        raise ConfigError(
            f"{given}: {ast.unparse(node)} is not a literal value, such as 0.1, 8, True or 'sgd'"
        ) from None


def _check(space: Space, text: str, spaces: Mapping[str, Space], config: ConfigDict) -> None:
    """Raises unless a key's value is valid in the config, or beside some of the other choices."""
    key = all_keys()[space.key]
    changed = with_values(config, {space.key: text})
    value = value_of(changed, space.key)
    if not key.accepts(value):
        raise ConfigError(f"{key.invalid_message(space.key, value)}; given {space.text}")
    try:
        config_lib.validate(changed)
    except ConfigError as error:
        others = [s for s in spaces.values() if s.choices and s is not space]
        combinations = itertools.product(*(other.choices for other in others))
        for choices in itertools.islice(combinations, MAX_COMBINATIONS):
            beside = dict(zip((other.key for other in others), choices, strict=True))
            if is_valid(with_values(config, beside | {space.key: text})):
                return
        raise ConfigError(f"{space.key}={space.text}: {error}") from None


def is_valid(config: ConfigDict) -> bool:
    """Returns whether a config is valid."""
    try:
        config_lib.validate(config)
    except ConfigError:
        return False
    return True
