"""The string language of augmentation: `random_crop(32, padding=4) | random_flip | equalize`.

Transforms by name, joined by `|` and applied from left to right, with the arguments of the Python
functions of the same names: numbers, strings, True, False, None, and tuples of these. Nothing is
evaluated. This file knows every transform's parameters, and needs no JAX until an image comes.
"""

import collections
import dataclasses
import difflib
import functools
import importlib
import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxcifar.config import CIFAR_MEAN, ConfigError

REQUIRED = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A transform's parameter: which values it takes, in words and as a test, and its default."""

    valid: str
    check: Callable[[Any], bool]
    default: Any = REQUIRED


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and low <= value <= high


def _is_whole(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return _is_number(value, low, high) and isinstance(value, int)


def _are(count: int, test: Callable, *limits: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, tuple) and len(value) == count and all(test(x, *limits) for x in value)
    )


def _is_range(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return _are(2, _is_number, low, high)(value) and value[0] <= value[1]


def _number(low: float, high: float, default: Any = REQUIRED) -> Parameter:
    valid = "a number" + _limits(low, high)
    return Parameter(valid, lambda value: _is_number(value, low, high), default)


def _whole(low: float, high: float = math.inf, default: Any = REQUIRED) -> Parameter:
    valid = "a whole number" + _limits(low, high)
    return Parameter(valid, lambda value: _is_whole(value, low, high), default)


def _limits(low: float, high: float) -> str:
    if high < math.inf:
        return f" in [{low:g}, {high:g}]"
    return f", {low:g} or more" if low > -math.inf else ""


def _choice(*names: str, default: Any = REQUIRED) -> Parameter:
    return Parameter(f"one of {', '.join(map(repr, names))}", lambda v: v in names, default)


def _optional(valid: str, check: Callable[[Any], bool]) -> Parameter:
    return Parameter(f"{valid}, or None", lambda value: value is None or check(value), None)


def _spread(low: float, high: float, default: Any = REQUIRED) -> Parameter:
    """Returns the parameter that is a range of draws, or its distance from the neutral value."""
    return Parameter(
        f"a number{_limits(0, high)}, or a range (low, high){_limits(low, high)}",
        lambda value: _is_number(value, 0, high) or _is_range(value, low, high),
        default,
    )


def _colour(default: Any, *, noise: bool = False) -> Parameter:
    others = ", or 'random'" if noise else ", or None" if default is None else ""
    return Parameter(
        f"a number in [0, 1] or three of them{others}",
        lambda value: (
            _is_number(value, 0, 1)
            or _are(3, _is_number, 0, 1)(value)
            or (noise and value == "random")
            or (default is None and value is None)
        ),
        default,
    )


_ANY = (-math.inf, math.inf)
_UNIT = (0, 1)
_PIXELS = Parameter(
    "a whole number, 1 or more, or two (height, width)",
    lambda v: _is_whole(v, 1) or _are(2, _is_whole, 1)(v),
)
_PADDING = Parameter(
    "a whole number, 0 or more, or a tuple of 2 or 4 (left, top, right, bottom)",
    lambda v: _is_whole(v, 0) or _are(2, _is_whole, 0)(v) or _are(4, _is_whole, 0)(v),
    0,
)
_PAIR = Parameter("two numbers", _are(2, _is_number))
_SHEAR = _optional(
    "a number, 0 or more, or a range (low, high), or two (low, high, low, high)",
    lambda v: (
        _is_number(v, 0)
        or _is_range(v)
        or (_are(4, _is_number)(v) and _is_range(v[:2]) and _is_range(v[2:]))
    ),
)
_POSITIVE = {"valid": "a number above 0", "check": lambda v: _is_number(v) and v > 0}
_SCALES = _optional("a range (low, high) above 0", lambda v: _is_range(v, 0) and v[0] > 0)
_KERNEL = Parameter(
    "an odd whole number, or two (x, y)",
    lambda v: all(_is_whole(n, 1) and n % 2 == 1 for n in (v if _are(2, _is_whole)(v) else (v,))),
)
_SIGMA = _optional(
    "a number above 0, or two (x, y)",
    lambda v: all(_is_number(s) and s > 0 for s in (v if _are(2, _is_number)(v) else (v,))),
)
_INTERPOLATION = _choice("nearest", "bilinear", default="nearest")
_WARP = {"interpolation": _INTERPOLATION, "fill": _colour(None)}
_CENTER = _optional("two numbers (x, y)", _PAIR.check)
_P = _number(*_UNIT, default=0.5)
_BINS = _whole(2, 1000, default=31)

# fn(image, ...) -> image
_FORMS: dict[str, dict[str, Parameter]] = {
    "hflip": {},
    "crop": {
        "top": _whole(*_ANY),
        "left": _whole(*_ANY),
        "height": _whole(1),
        "width": _whole(1),
    },
    "rotate": {"angle": _number(*_ANY), **_WARP, "center": _CENTER},
    "affine": {
        "angle": _number(*_ANY),
        "translate": _PAIR,
        "scale": Parameter(**_POSITIVE),
        "shear": _PAIR,
        **_WARP,
        "center": _CENTER,
    },
    "shear_x": {"factor": _number(*_ANY), **_WARP},
    "shear_y": {"factor": _number(*_ANY), **_WARP},
    "translate_x": {"pixels": _number(*_ANY), **_WARP},
    "translate_y": {"pixels": _number(*_ANY), **_WARP},
    "erase": {
        "i": _whole(0),
        "j": _whole(0),
        "h": _whole(0),
        "w": _whole(0),
        "v": _colour(REQUIRED),
    },
    "adjust_brightness": {"brightness_factor": _number(0, math.inf)},
    "adjust_contrast": {"contrast_factor": _number(0, math.inf)},
    "adjust_saturation": {"saturation_factor": _number(0, math.inf)},
    "adjust_hue": {"hue_factor": _number(-0.5, 0.5)},
    "adjust_sharpness": {"sharpness_factor": _number(0, math.inf)},
    "posterize": {"bits": _whole(0, 8)},
    "solarize": {"threshold": _number(*_UNIT)},
    "autocontrast": {},
    "equalize": {},
    "invert": {},
    "gaussian_blur": {"kernel_size": _KERNEL, "sigma": _SIGMA},
}

# fn(key, image, ...) -> image
_RANDOM: dict[str, dict[str, Parameter]] = {
    "random_crop": {
        "size": _PIXELS,
        "padding": _PADDING,
        "padding_mode": _choice("constant", "edge", "reflect", "symmetric", default="constant"),
    },
    "random_flip": {"p": _P},
    "color_jitter": {
        "brightness": _spread(0, math.inf, default=0.0),
        "contrast": _spread(0, math.inf, default=0.0),
        "saturation": _spread(0, math.inf, default=0.0),
        "hue": _spread(-0.5, 0.5, default=0.0),
    },
    "random_rotation": {
        "degrees": _spread(*_ANY),
        "interpolation": _INTERPOLATION,
        "fill": _colour(0.0),
    },
    "random_affine": {
        "degrees": _spread(*_ANY),
        "translate": _optional("two numbers in [0, 1]", _are(2, _is_number, *_UNIT)),
        "scale": _SCALES,
        "shear": _SHEAR,
        "interpolation": _INTERPOLATION,
        "fill": _colour(0.0),
    },
    "random_erasing": {
        "p": _P,
        "scale": Parameter(
            "a range (low, high) in [0, 1]", lambda v: _is_range(v, *_UNIT), (0.02, 0.33)
        ),
        "ratio": Parameter(
            "a range (low, high) above 0", lambda v: _is_range(v, 0) and v[0] > 0, (0.3, 3.3)
        ),
        "value": _colour(CIFAR_MEAN, noise=True),
    },
    "cutout": {"size": _whole(1), "value": _colour(CIFAR_MEAN)},
    "randaugment": {
        "num_ops": _whole(0, 20, default=2),
        "magnitude": _whole(0, default=9),
        "num_magnitude_bins": _BINS,
    },
    "autoaugment": {"policy": _choice("cifar10", "svhn", "imagenet", default="cifar10")},
    "trivial_augment": {"num_magnitude_bins": _BINS},
    "augmix": {
        "severity": _whole(1, 10, default=3),
        "width": _whole(1, 10, default=3),
        "depth": Parameter(
            "a whole number, 1 to 10, or -1 for 1 to 3 at random",
            lambda v: _is_whole(v, 1, 10) or (_is_whole(v) and v == -1),
            -1,
        ),
        "alpha": Parameter(**_POSITIVE, default=1.0),
    },
}

TRANSFORMS = _FORMS | _RANDOM


class _Token(NamedTuple):
    kind: str  # "number", "string", "name", "end", or the mark itself
    value: Any
    end: int  # where it ends in the text


class _Mistake(Exception):
    """A mistake in the text, up to whose position it is shown."""

    def __init__(self, message: str, end: int):
        super().__init__(message)
        self.end = end


def parse(text: str, *, mean: Sequence[float] = CIFAR_MEAN) -> Callable[[Any, Any], Any]:
    """Returns the function (key, image) -> image that a line of transforms describes.

    It can be jitted and vmapped. Images are float32 [H, W, 3] in [0, 1]. Every transform in the
    line draws from a key of its own.

    Args:
        text: such as `random_crop(32, padding=4) | random_flip`; '' leaves images as they are.
        mean: the colour in [0, 1] that random_erasing and cutout paint with, unless told a value.

    Raises:
        ConfigError: naming the mistake, where it is, and what is valid.
    """
    calls = read(text)
    for name, arguments in calls:
        if "value" in TRANSFORMS[name]:
            arguments.setdefault("value", tuple(mean))

    def transform(key, image):
        import jax

        forms = importlib.import_module("jaxcifar.augment")
        for number, (name, arguments) in enumerate(calls):
            keys = (jax.random.fold_in(key, number),) if name in _RANDOM else ()
            image = getattr(forms, name)(*keys, image, **arguments)
        return image

    return transform


def read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns a line's transforms as (name, arguments given), checked, without importing JAX.

    Raises:
        ConfigError: as `parse`.
    """
    try:
        tokens = _tokens(text)
        if tokens[0].kind == "end":
            return []
        calls = [_read_call(tokens)]
        while _next(tokens, "'|'", "|", "end").kind == "|":
            calls.append(_read_call(tokens))
        return calls
    except _Mistake as mistake:
        shown = " ".join(text[: mistake.end].split())
        raise ConfigError(f"augment: {mistake}\n  {shown} <-- here") from None


def checked(form: Callable) -> Callable:
    """Makes a random form check its arguments after (key, image) by TRANSFORMS.

    Raises:
        ConfigError: on call, naming the parameter, the value and what is valid.
    """
    parameters = tuple(inspect.signature(form).parameters)[2:]

    @functools.wraps(form)
    def checked_form(key, image, *args, **kwargs):
        arguments = dict(zip(parameters, args, strict=False)) | kwargs
        for name, value in arguments.items():
            if name in parameters:  # Python says what is wrong with other names
                _check(form.__name__, name, value)
        _check_together(form.__name__, arguments)
        return form(key, image, *args, **kwargs)

    return checked_form


def _tokens(text: str) -> collections.deque[_Token]:
    pattern = re.compile(
        r"(?P<number>[-+]?\.?\d[\w.]*((?<=[eE])[-+]\d+)?)"
        r"|(?P<string>'[^']*'|\"[^\"]*\")|(?P<name>[A-Za-z_]\w*)|(?P<mark>[(),=|])|\s+"
    )
    tokens, place = collections.deque(), 0
    while place < len(text):
        match = pattern.match(text, place)
        if not match:
            raise _Mistake(f"{text[place]!r} does not belong here", place + 1)
        place = match.end()
        found = match[0]
        if match["number"]:
            try:
                number = int(found) if re.fullmatch(r"[-+]?\d+", found) else float(found)
            except ValueError:
                raise _Mistake(f"{found!r} is not a number", place) from None
            tokens.append(_Token("number", number, place))
        elif match["string"]:
            tokens.append(_Token("string", found[1:-1], place))
        elif match["name"] or match["mark"]:
            tokens.append(_Token("name" if match["name"] else found, found, place))
    tokens.append(_Token("end", "the end", len(text)))
    return tokens


def _next(tokens: collections.deque[_Token], wanted: str, *kinds: str) -> _Token:
    """Takes the next token, which must be of one of the kinds; `wanted` says which in words."""
    token = tokens[0]
    if token.kind not in kinds:
        found = token.value if token.kind == "end" else repr(token.value)
        raise _Mistake(f"{wanted} is expected, not {found}", token.end)
    return tokens.popleft() if token.kind != "end" else token


def _read_call(tokens: collections.deque[_Token]) -> tuple[str, dict[str, Any]]:
    token = _next(tokens, "a transform's name", "name")
    name, end = token.value, token.end
    if name == "normalize":
        raise _Mistake(
            "normalize is not for here: normalisation with data.mean and data.std always follows "
            "augmentation; leave it out",
            end,
        )
    if name not in TRANSFORMS:
        near = difflib.get_close_matches(name, TRANSFORMS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise _Mistake(
            f"there is no transform {name!r}; {hint}known are {', '.join(TRANSFORMS)}", end
        )
    arguments: dict[str, Any] = {}
    if tokens[0].kind == "(":
        tokens.popleft()
        by_name = False
        while tokens[0].kind != ")":
            by_name = _read_argument(tokens, name, arguments, by_name)
            if tokens[0].kind != ")":
                _next(tokens, f"',' or the ')' of {name}", ",")
        end = tokens.popleft().end
    for parameter, spec in TRANSFORMS[name].items():
        if spec.default is REQUIRED and parameter not in arguments:
            raise _Mistake(f"{name} needs {parameter}: {spec.valid}", end)
    try:
        _check_together(name, arguments)
    except ConfigError as error:
        raise _Mistake(str(error).removeprefix("augment: "), end) from None
    return name, arguments


def _read_argument(
    tokens: collections.deque[_Token], name: str, arguments: dict[str, Any], by_name: bool
) -> bool:
    """Reads `value` or `parameter=value` into the arguments; returns whether it had a name."""
    parameters = TRANSFORMS[name]
    token = tokens[0]
    named = token.kind == "name" and len(tokens) > 1 and tokens[1].kind == "="
    if named:
        tokens.popleft(), tokens.popleft()
        parameter = token.value
        if parameter not in parameters:
            raise _Mistake(f"{name} has no parameter {parameter!r}; {_usage(name)}", token.end)
        if parameter in arguments:
            raise _Mistake(f"{name}'s {parameter} is given twice", token.end)
    else:
        if by_name:
            raise _Mistake("values without a name come before those with one", token.end)
        if len(arguments) == len(parameters):
            raise _Mistake(f"{token.value!r} is one value too many; {_usage(name)}", token.end)
        parameter = list(parameters)[len(arguments)]
    value, end = _read_value(tokens, f"a value for {name}'s {parameter}")
    try:
        _check(name, parameter, value)
    except ConfigError as error:
        raise _Mistake(str(error).removeprefix("augment: "), end) from None
    arguments[parameter] = value
    return named


def _read_value(tokens: collections.deque[_Token], wanted: str) -> tuple[Any, int]:
    """Reads a number, string, constant or tuple; returns it and where it ends."""
    token = _next(tokens, wanted, "number", "string", "name", "(")
    if token.kind == "name":
        constants = {"True": True, "False": False, "None": None}
        if token.value not in constants:
            raise _Mistake(f"{wanted} is expected; a text needs quotes: '{token.value}'", token.end)
        return constants[token.value], token.end
    if token.kind != "(":
        return token.value, token.end
    values, commas = [], 0
    while tokens[0].kind != ")":
        values.append(_read_value(tokens, wanted)[0])
        if tokens[0].kind != ")":
            _next(tokens, "',' or the tuple's ')'", ",")
            commas += 1
    end = tokens.popleft().end
    return (values[0] if len(values) == 1 and not commas else tuple(values)), end


def _check(name: str, parameter: str, value: Any) -> None:
    spec = TRANSFORMS[name][parameter]
    if not spec.check(value):
        raise ConfigError(f"augment: {name}'s {parameter}={value!r} must be {spec.valid}")


def _check_together(name: str, arguments: dict[str, Any]) -> None:
    if name == "randaugment":
        defaults = {parameter: spec.default for parameter, spec in TRANSFORMS[name].items()}
        given = defaults | arguments
        if given["magnitude"] >= given["num_magnitude_bins"]:
            raise ConfigError(
                f"augment: randaugment's magnitude={given['magnitude']} must be less than "
                f"num_magnitude_bins={given['num_magnitude_bins']}"
            )


def _usage(name: str) -> str:
    parameters = [
        f"{parameter}"
        + ("" if spec.default is REQUIRED else f"={spec.default!r}")
        + f" ({spec.valid})"
        for parameter, spec in TRANSFORMS[name].items()
    ]
    return f"it takes {', '.join(parameters) or 'none'}"
