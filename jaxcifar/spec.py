"""Parameter declarations read from annotated signatures, and ConfigError.

The leaf of the package: it imports nothing else from it. A transform, schedule, optimizer, model or
data set is a function, and its signature is the only place that says what it takes:

    def step_lr(lr: PositiveFloat, *, step_size: PositiveInt, gamma: PositiveFloat = 0.1): ...

The annotations give types and valid values, the defaults are the defaults, and the docstring's
`Args:` say what a parameter means. Config keys, --help and error messages are made from these.
"""

import ast
import contextlib
import dataclasses
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

REQUIRED = inspect.Parameter.empty


class ConfigError(ValueError):
    """What the user has to fix, in the config, a file or the machine: the message says what is
    wrong, what is valid, and what to do.

    `command_hint` is added where a command reports the error; it may mention flags.
    """

    def __init__(self, message: str, *, command_hint: str = ""):
        super().__init__(message)
        self.command_hint = command_hint


def invalid(name: str, value: Any, valid: str) -> str:
    """Returns the message about a value that is not valid; `valid` says which values are."""
    return f"{name}={value!r} is not valid: it must be {valid}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type's name if that is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# --- constraints ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Constraint:
    """What an annotated value must satisfy: `check`, and how to say it.

    The text follows the type's noun ("an integer, 1 or more"), or replaces it.
    """

    check: Callable[[Any], bool]
    text: str
    replaces_noun: bool = False


def at_least(low: float) -> Constraint:
    """Returns the constraint low ≤ value."""
    return Constraint(lambda value: value >= low, f", {_digits(low)} or more")


def more_than(low: float) -> Constraint:
    """Returns the constraint low < value."""
    return Constraint(lambda value: value > low, f" above {low:g}")


def between(
    low: float, high: float, closed: Literal["both", "left", "right", "neither"] = "both"
) -> Constraint:
    """Returns the constraint that a value lies in an interval; `closed` names the included ends."""
    has_low, has_high = closed in ("both", "left"), closed in ("both", "right")

    def check(value: float) -> bool:
        return low < value < high or (has_low and value == low) or (has_high and value == high)

    brackets = "[" if has_low else "(", "]" if has_high else ")"
    return Constraint(check, f" in {brackets[0]}{_digits(low)}, {_digits(high)}{brackets[1]}")


def described(text: str, check: Callable[[Any], bool] = lambda value: True) -> Constraint:
    """Returns a constraint that is described in its own words, such as "a range (low, high)"."""
    return Constraint(check, text, replaces_noun=True)


def _digits(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


nonempty = Constraint(lambda value: len(value) > 0, ", at least one")

PositiveInt = Annotated[int, at_least(1)]
NonNegativeInt = Annotated[int, at_least(0)]
PositiveFloat = Annotated[float, more_than(0)]
NonNegativeFloat = Annotated[float, at_least(0)]
Probability = Annotated[float, between(0, 1)]
Fraction = Annotated[float, between(0, 1, "left")]
OpenFraction = Annotated[float, between(0, 1, "neither")]


# --- annotations ----------------------------------------------------------------------------------

_NOUNS = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "booleans"),
    str: ("a string", "strings"),
    type(None): ("None", "Nones"),
}
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}


def describe(annotation: Any, *, plural: bool = False) -> str:
    """Returns which values an annotation allows, such as "an integer, 1 or more"."""
    kind, arguments = _split(annotation)
    if kind is Annotated:
        text = describe(arguments[0], plural=plural)
        for constraint in arguments[1:]:
            if isinstance(constraint, Constraint):
                text = constraint.text if constraint.replaces_noun else text + constraint.text
        return text
    if kind is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if kind is types.UnionType:
        return ", or ".join(describe(member, plural=plural) for member in arguments)
    if kind is tuple and arguments:
        if arguments[-1] is Ellipsis:
            return f"a tuple of {describe(arguments[0], plural=True)}"
        return f"{_COUNTS[len(arguments)]} {describe(arguments[0], plural=True)}"
    return _NOUNS[kind][plural]


def accepts(annotation: Any, value: Any) -> bool:
    """Returns whether a value is what an annotation allows. Lists count as tuples, integers as
    floats; booleans are not integers; NaN and infinity are not numbers.
    """
    kind, arguments = _split(annotation)
    if kind is Annotated:
        constraints = [c for c in arguments[1:] if isinstance(c, Constraint)]
        return accepts(arguments[0], value) and all(c.check(value) for c in constraints)
    if kind is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if kind is types.UnionType:
        return any(accepts(member, value) for member in arguments)
    if kind is tuple:
        if not isinstance(value, tuple | list):
            return False
        if arguments[-1] is Ellipsis:
            return all(accepts(arguments[0], item) for item in value)
        return len(value) == len(arguments) and all(map(accepts, arguments, value))
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def from_text(annotation: Any, text: str) -> Any:
    """Returns the value that a string stands for, as on a command line.

    Raises:
        ValueError: the string cannot be read as any type that the annotation allows.
    """
    kinds = set(_kinds(annotation))
    if bool in kinds and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    if kinds - {str}:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = text
        if isinstance(value, list):
            value = tuple(value)
        if tuple in kinds and isinstance(value, int | float) and not kinds & {int, float}:
            value = (value,)
        if float in kinds and type(value) is int and int not in kinds:
            with contextlib.suppress(OverflowError):
                value = float(value)
        if type(value) in kinds - {str}:
            return value
    if str in kinds:
        return text
    raise ValueError(text)


def only_type(annotation: Any) -> type:
    """Returns the single type of the allowed values, ignoring None, or `object`."""
    kinds = set(_kinds(annotation)) - {type(None)}
    return kinds.pop() if len(kinds) == 1 else object


def _split(annotation: Any) -> tuple[Any, tuple]:
    """Returns an annotation's kind (a type, Annotated, Literal or UnionType) and its arguments."""
    if annotation is None:
        return type(None), ()
    if hasattr(annotation, "__metadata__"):
        return Annotated, (annotation.__origin__, *annotation.__metadata__)
    origin = typing.get_origin(annotation)
    kind = types.UnionType if origin is typing.Union else origin or annotation
    return kind, typing.get_args(annotation)


def _kinds(annotation: Any) -> Iterator[type]:
    kind, arguments = _split(annotation)
    if kind is Annotated:
        yield from _kinds(arguments[0])
    elif kind is Literal:
        yield from map(type, arguments)
    elif kind is types.UnionType:
        for member in arguments:
            yield from _kinds(member)
    else:
        yield kind


# --- parameters -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a key of a config: what it may be, its default, its meaning."""

    annotation: Any
    default: Any = REQUIRED
    meaning: str = ""

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is REQUIRED

    @property
    def valid(self) -> str:
        """Which values are valid, in words."""
        return describe(self.annotation)

    def accepts(self, value: Any) -> bool:
        """Returns whether a value is valid."""
        return accepts(self.annotation, value)


def parameters(function: Callable, *, unchecked: Iterable[str] = ()) -> dict[str, Parameter]:
    """Returns a function's parameters by name.

    Args:
        function: every parameter is annotated; a docstring's `Args:` says what they mean.
        unchecked: parameters that may have any annotation; skipped if it is unsupported.

    Raises:
        ConfigError: a parameter has no annotation, or one that is not understood here.
    """
    meanings = argument_docs(function)
    declared = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"{function.__name__}'s parameter {name!r} must be one that can be passed by name"
            )
        annotation, default = parameter.annotation, parameter.default
        try:
            if isinstance(annotation, str):  # from __future__ import annotations
                annotation = eval(annotation, inspect.unwrap(function).__globals__)
            describe(annotation)
            hash(annotation)
        except Exception:  # whatever evaluating an annotation raises
            if name in unchecked:
                continue
            raise ConfigError(
                f"{function.__name__}'s parameter {name!r} needs an annotation made of int, float, "
                "bool, str, tuple, Literal, None and |, with constraints in Annotated"
            ) from None
        if default is not REQUIRED and name not in unchecked:
            if isinstance(default, list) or not accepts(annotation, default):
                raise ConfigError(
                    f"{function.__name__}'s default "
                    + invalid(name, default, f"{describe(annotation)} (and no list)")
                )
            if type(default) is int and only_type(annotation) is float:
                default = float(default)
        declared[name] = Parameter(annotation, default, meanings.get(name, ""))
    return declared


def argument_docs(function: Callable) -> dict[str, str]:
    """Returns what the `Args:` section of a function's docstring says, by parameter."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.getdoc(function) or "", re.M)
    entry = r"^    (\w+): (.*(?:\n     .*)*)"
    entries = re.findall(entry, section[1] if section else "", re.M)
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}


def check_arguments(
    declared: Mapping[str, Parameter], values: Mapping[str, Any], prefix: str = ""
) -> None:
    """Checks values by the parameters of the same names.

    Raises:
        ConfigError: naming the parameter (after `prefix`), the value and what is valid.
    """
    for name, value in values.items():
        if name in declared and not declared[name].accepts(value):
            raise ConfigError(invalid(f"{prefix}{name}", value, declared[name].valid))


def checked(function: Callable, declared: Mapping[str, Parameter] | None = None) -> Callable:
    """Returns the function with its arguments checked at every call: as `declared`, by default by
    all annotations that are understood here.

    Only plain Python values are checked: arrays, traced ones among them, pass.

    Raises:
        ConfigError: at the call, naming the parameter, the value and what is valid.
    """
    signature = inspect.signature(function)
    if declared is None:
        declared = parameters(function, unchecked=signature.parameters)

    @functools.wraps(function)
    def checked_function(*args, **kwargs):
        arguments = signature.bind(*args, **kwargs).arguments
        check_arguments(declared, {k: v for k, v in arguments.items() if _is_plain(v)})
        return function(*args, **kwargs)

    return checked_function


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
