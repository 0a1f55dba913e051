from typing import Annotated, Any, Literal

import pytest

from jaxcifar import spec
from jaxcifar.spec import ConfigError, NonNegativeFloat, PositiveFloat, PositiveInt, Probability

Range = Annotated[
    tuple[float, float], spec.described("a range (low, high)", lambda v: v[0] <= v[1])
]
Colors = tuple[Probability, Probability, Probability]


@pytest.mark.parametrize(
    ("annotation", "text", "valid", "invalid"),
    [
        (int, "an integer", [3, -1], [True, 1.0, "1", None]),
        (float, "a number", [3, 0.5], [False, "1", float("nan"), float("inf")]),
        (bool, "true or false", [True], [1, "true"]),
        (str, "a string", [""], [1, ("a",)]),
        (PositiveInt, "an integer, 1 or more", [1], [0, 1.5]),
        (PositiveFloat, "a number above 0", [1e-9], [0]),
        (Probability, "a number in [0, 1]", [0, 1], [-0.1, 1.1]),
        (spec.Fraction, "a number in [0, 1)", [0, 0.9], [1]),
        (spec.OpenFraction, "a number in (0, 1)", [0.5], [0, 1]),
        (Annotated[float, spec.between(0, 1, "right")], "a number in (0, 1]", [1], [0]),
        (Literal["a", "b"], "one of 'a', 'b'", ["a"], ["c", 1]),
        (int | None, "an integer, or None", [1, None], ["None"]),
        (Colors, "three numbers in [0, 1]", [(0, 0.5, 1), [0, 0, 0]], [(0, 1), (0, 0, 2), 1]),
        (tuple[PositiveInt, ...], "a tuple of integers, 1 or more", [(), (1, 2)], [(0,), 3]),
        (
            Annotated[tuple[int, ...], spec.nonempty],
            "a tuple of integers, at least one",
            [(1,)],
            [()],
        ),
        (
            NonNegativeFloat | Range,
            "a number, 0 or more, or a range (low, high)",
            [0, (-1, 1)],
            [-1, (1, -1), (1, 2, 3)],
        ),
    ],
)
def test_describe_and_validate_annotations(annotation, text, valid, invalid):
    assert spec.describe(annotation) == text
    assert all(spec.accepts(annotation, value) for value in valid)
    assert not any(spec.accepts(annotation, value) for value in invalid)


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "7", 7),
        (float, "1", 1.0),
        (float, "1e-3", 1e-3),
        (float, " 2 ", 2.0),
        (bool, "False", False),
        (bool, "1", True),
        (str, "7", "7"),
        (str, "", ""),
        (Literal["a", "b"], "a", "a"),
        (tuple[int, ...], "(30, 60)", (30, 60)),
        (tuple[int, ...], "[30, 60]", (30, 60)),
        (tuple[int, ...], "3", (3,)),
        (tuple[float, float], "0.1,0.2", (0.1, 0.2)),
        (int | None, "None", None),
        (Literal["random"] | float, "random", "random"),
        (Literal["random"] | float, "0.5", 0.5),
    ],
)
def test_from_text_parses_by_type(annotation, text, value):
    read = spec.from_text(annotation, text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "1.5"),
        (int, "1e3"),
        (float, "nan"),
        (float, ""),
        (bool, "2"),
        (tuple[int, ...], "a,b"),
    ],
)
def test_from_text_of_another_type_raises(annotation, text):
    with pytest.raises(ValueError):
        spec.from_text(annotation, text)


def test_malicious_string_raises_instead_of_crashing():
    with pytest.raises(ValueError, match=r"\("):
        spec.from_text(int, "(" * 100_000)


def scale(image: Any, factor: PositiveFloat, clip: bool = True, *, mode: Literal["a", "b"] = "a"):
    """Scales an image.

    Args:
        image: an image.
        factor: what it is
            multiplied by.
        clip: whether to clip
        mode: 'a' or 'b': a mode.

    Returns:
        the image.
    """
    return factor


def test_signature_and_docstring_declare_parameters():
    declared = spec.parameters(scale, unchecked=("image",))
    assert list(declared) == ["factor", "clip", "mode"]
    assert declared["factor"].is_required
    assert declared["factor"].valid == "a number above 0"
    assert declared["factor"].meaning == "what it is multiplied by"
    assert declared["clip"].default is True
    assert declared["clip"].meaning == "whether to clip"
    assert declared["mode"].meaning == "'a' or 'b': a mode"


def test_annotations_may_be_strings():
    namespace: dict[str, Any] = {}
    code = (
        "from __future__ import annotations\n"
        "from jaxcifar.spec import PositiveInt\n"
        "def f(x: Unknown, n: PositiveInt = 3): ...\n"
    )
    exec(code, namespace)
    assert spec.parameters(namespace["f"], unchecked=("x",))["n"].valid == "an integer, 1 or more"


def test_unsupported_annotation_raises():
    with pytest.raises(ConfigError, match="scale's parameter 'image' needs an annotation"):
        spec.parameters(scale)

    def no_annotation(x=1):
        return x

    with pytest.raises(ConfigError, match="'x' needs an annotation"):
        spec.parameters(no_annotation)


def test_checked_functions_validate_plain_values_but_not_arrays():
    checked = spec.checked(scale)
    assert checked(None, 2) == 2
    array = object()
    assert checked(None, array) is array
    assert checked(None, (array, 1)) == (array, 1)
    with pytest.raises(ConfigError, match=r"factor=0 is not valid: it must be a number above 0"):
        checked(None, 0)
    with pytest.raises(ConfigError, match=r"mode='c' is not valid: it must be one of 'a', 'b'"):
        checked(None, 1, mode="c")
    with pytest.raises(TypeError, match="factr"):
        checked(None, 1, factr=1)


def test_only_type():
    assert spec.only_type(PositiveInt | None) is int
    assert spec.only_type(Literal["a"] | str) is str
    assert spec.only_type(float | tuple[float, float]) is object
