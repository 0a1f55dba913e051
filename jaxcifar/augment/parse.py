"""The string language of augmentation: `random_crop(32, padding=4) | random_flip | equalize`.

Registered transforms by name, joined by `|` and applied from left to right, with numbers, strings,
True, False, None and tuples of these as arguments. An augmentation string is one Python expression:
Python's parser reads it, nothing is evaluated, and error messages show the text up to the error.
"""

import ast
import contextlib
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcifar import spec
from jaxcifar.augment.registry import MEAN, TRANSFORMS, TransformEntry
from jaxcifar.data import CIFAR_MEAN
from jaxcifar.spec import ConfigError

_SYNTAX = "name | name(value, parameter=value) | ..."


def parse(
    text: str, *, mean: Sequence[float] = CIFAR_MEAN
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns the function (key, image) -> image that an augmentation string describes.

    It can be jitted and vmapped. Images are float32 [H, W, 3] in [0, 1]. Every transform in the
    string draws from its own key.

    Args:
        text: such as `random_crop(32, padding=4) | random_flip`; '' leaves images unchanged.
        mean: the color in [0, 1] that random_erasing and cutout fill with by default, and that
            replaces any default of MEAN.

    Raises:
        ConfigError: says what is wrong, where, and what is valid.
    """
    calls = _calls(text, mean)

    def transform(key: jax.Array, image: jax.Array) -> jax.Array:
        for index, call in enumerate(calls):
            image = call(jax.random.fold_in(key, index), image)
        return image

    return transform


def parse_views(
    text: str, *, mean: Sequence[float] = CIFAR_MEAN
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns the function (key, image) -> views, float32 [3, H, W, 3], of an augmentation string
    with `augmix`: an image without it and with two draws of it. Every other transform is drawn once
    for all three.

    Arguments and errors are those of `parse`.

    Raises:
        ConfigError: the string does not have `augmix` once.
    """
    calls, names = _calls(text, mean), [name for name, _ in read(text)]
    if names.count("augmix") != 1:
        raise ConfigError(
            f"augment={text!r} must have augmix once, to show an image in three views"
        )

    def views(key: jax.Array, image: jax.Array) -> jax.Array:
        images = [image]
        for index, (name, call) in enumerate(zip(names, calls, strict=True)):
            own_key = jax.random.fold_in(key, index)
            if name == "augmix":
                images += [call(jax.random.fold_in(own_key, view), images[0]) for view in (1, 2)]
            else:
                images = [call(own_key, image) for image in images]
        return jnp.stack(images)

    return views


def _calls(text: str, mean: Sequence[float]) -> list[Callable[[jax.Array, jax.Array], jax.Array]]:
    """Returns a string's transforms as functions (key, image) -> image."""
    calls = []
    for name, arguments in read(text):
        entry = TRANSFORMS[name]
        means = {
            parameter: tuple(mean)
            for parameter, declared in entry.parameters.items()
            if declared.default is MEAN  # a sentinel, compared by identity
        }
        call = functools.partial(entry.function, **means | arguments)
        if not entry.is_random:
            call = functools.partial(lambda call, key, image: call(image), call)
        calls.append(call)
    return calls


def read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns an augmentation string's transforms as (name, arguments that are set), checked.

    Raises:
        ConfigError: as `parse`.
    """
    source = re.sub(r"\s", " ", text).strip()  # one line, so that a position is one number
    try:
        return [_read_call(node) for node in _parse_transforms(source)] if source else []
    except _LocatedError as error:
        shown = " ".join(source.encode(errors="replace")[: error.end].decode().split())
        raise ConfigError(f"augment: {error}\n  {shown} <-- here") from None
    except (MemoryError, RecursionError):
        raise ConfigError("augment: the string is too long or too deeply nested") from None


class _LocatedError(Exception):
    """An error in the string, to be shown up to the position `end`, in UTF-8 bytes."""

    def __init__(self, message: str, end: int):
        super().__init__(message)
        self.end = end


@contextlib.contextmanager
def _located_at(node: ast.AST) -> Iterator[None]:
    """Turns a ConfigError into a _LocatedError at the end of the node."""
    try:
        yield
    except ConfigError as error:
        raise _LocatedError(str(error), node.end_col_offset) from None


def _parse_transforms(source: str) -> list[ast.expr]:
    """Returns the expressions that `|` joins."""
    if unreadable := re.search(r"[\0\ud800-\udfff]", source):  # which ast.parse rejects
        end = len(source[: unreadable.start()].encode())
        raise _LocatedError(f"unexpected {unreadable[0]!r}", end)
    try:
        # warnings about code that is rejected anyway
        with warnings.catch_warnings(action="ignore"):
            # Unlike at the end of a line, at the end of input the parser gives no position.
            node = ast.parse(source + "\n", mode="eval").body
    except SyntaxError as error:
        start = (error.offset or len(source)) - 1  # in characters, unlike the nodes' offsets
        end = max(start + 1, (error.end_offset or 0) - 1)
        message = error.msg.removesuffix(" (detected at line 1)")
        if message == "invalid syntax":
            unexpected = repr(source[start:end]) if start < len(source) else "end of the string"
            message = f"unexpected {unexpected}; expected: {_SYNTAX}"
        raise _LocatedError(message, len(source[:end].encode())) from None
    rest = source.encode()[node.end_col_offset :].decode()
    if "#" in rest:  # Python would treat the rest as a comment
        raise _LocatedError("unexpected '#'", node.end_col_offset + rest.index("#") + 1)
    nodes = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        nodes.append(node.right)
        node = node.left
    return [node, *reversed(nodes)]


def _read_call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    called, values, keywords = node, [], []
    if isinstance(node, ast.Call):
        called, values, keywords = node.func, node.args, node.keywords
    with _located_at(called):
        if not isinstance(called, ast.Name):
            raise ConfigError(f"expected a transform's name, as in: {_SYNTAX}")
        if called.id == "normalize":
            raise ConfigError(
                "normalize does not belong here: normalization with data.mean and data.std always "
                "follows augmentation; leave it out"
            )
        entry = TRANSFORMS[called.id]
    arguments: dict[str, Any] = {}
    for value in values:
        with _located_at(value):
            if len(arguments) == len(entry.parameters):
                raise ConfigError(f"too many values for {entry.name}; {_usage(entry)}")
            parameter = list(entry.parameters)[len(arguments)]
            arguments[parameter] = _read_value(value, entry, parameter)
    for keyword in keywords:
        with _located_at(keyword):
            parameter = keyword.arg or "**"
            if parameter not in entry.parameters:
                raise ConfigError(f"{entry.name} has no parameter {parameter!r}; {_usage(entry)}")
            if parameter in arguments:
                raise ConfigError(f"{entry.name}'s {parameter} is set twice")
            arguments[parameter] = _read_value(keyword.value, entry, parameter)
    with _located_at(node):
        for parameter, declared in entry.parameters.items():
            if declared.is_required and parameter not in arguments:
                raise ConfigError(f"{entry.name} needs {parameter}: {declared.valid}")
        entry.validate(arguments, prefix=f"{entry.name}'s ")
    return entry.name, arguments


def _read_value(node: ast.expr, entry: TransformEntry, parameter: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):  # TypeError: a list in a set
        hint = f": {entry.parameters[parameter].valid}"
        if isinstance(node, ast.Name):
            hint = f"; a string needs quotes: {node.id!r}"
        raise ConfigError(f"{entry.name}'s {parameter} must be a literal value{hint}") from None
    spec.check_arguments(entry.parameters, {parameter: value}, prefix=f"{entry.name}'s ")
    return value


def _usage(entry: TransformEntry) -> str:
    parameters = [
        f"{name}"
        + ("" if declared.is_required else f"={declared.default!r}")
        + f" ({declared.valid})"
        for name, declared in entry.parameters.items()
    ]
    return f"it takes {', '.join(parameters) or 'no arguments'}"
