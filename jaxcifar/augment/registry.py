"""The registry of transforms, and the parameter types that they share.

A transform is a function (image, ...) -> image, or (key, image, ...) -> image if it is random. The
decorator `transform` registers it for augmentation strings and checks its arguments at every call;
its annotated signature is its only declaration. A user's config file adds its own in the same way:

    @transform
    def darken(key: jax.Array, image: jax.Array, p: Probability = 0.5) -> jax.Array: ...

Separate so that the transform modules and `parse` can import it without a cycle.
"""

import dataclasses
import inspect
from typing import Annotated, Any, Literal

from jaxcifar.data import CIFAR_MEAN
from jaxcifar.registry import Entry, Registry
from jaxcifar.spec import (
    ConfigError,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    between,
    describe,
    described,
)

# The default of color parameters: `parse` recognizes it by identity and replaces it with the mean
# of the run's data.
MEAN = CIFAR_MEAN


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformEntry(Entry):
    """A registered transform: a function (image, ...) -> image, or (key, image, ...) -> image if it
    is random, to be jitted and vmapped. Images are float32 [H, W, 3] in [0, 1].

    `examples` are augmentation strings for the preview, needed if the transform has required
    parameters or its defaults change little.
    """

    examples: tuple[str, ...] = ()

    def __post_init__(self):
        names = list(inspect.signature(self.function).parameters)
        leading = ["key", "image"] if self.is_random else ["image"]
        if names[: len(leading)] != leading:
            raise ConfigError(
                f"the transform {self.name!r} must take (image, ...) or, if it is random, "
                f"(key, image, ...), not ({', '.join(names)})"
            )

    @property
    def is_random(self) -> bool:
        """Whether the function takes a PRNG key."""
        return "key" in inspect.signature(self.function).parameters


TRANSFORMS = Registry("transform", reserved=("key", "image"), entry_type=TransformEntry)
transform = TRANSFORMS.register


def range_of(annotation: Any) -> Any:
    """Returns the annotation of a range (low, high) of numbers that have this annotation."""
    limits = describe(annotation).removeprefix("a number")
    is_ordered = described(f"a range (low, high){limits}", lambda ends: ends[0] <= ends[1])
    return Annotated[tuple[annotation, annotation], is_ordered]


UnitFloat = Probability  # under a name that fits colors and fractions of the image
Color = UnitFloat | tuple[UnitFloat, UnitFloat, UnitFloat]
Interpolation = Literal["nearest", "bilinear"]
Point = Annotated[tuple[float, float], described("two numbers (x, y)")]
Size = PositiveInt | Annotated[tuple[PositiveInt, PositiveInt], described("two (height, width)")]
Range = range_of(float)
PositiveRange = range_of(PositiveFloat)
UnitRange = range_of(UnitFloat)
# A range to sample from, or its half-width around the neutral value.
Spread = NonNegativeFloat | Range
FactorSpread = NonNegativeFloat | range_of(NonNegativeFloat)
HueShift = Annotated[float, between(-0.5, 0.5)]
HueSpread = Annotated[float, between(0, 0.5)] | range_of(HueShift)


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) for a `Size`."""
    return (size, size) if isinstance(size, int) else size
