"""The registry of corruptions: what one declares, and the decorator `corruption`.

A corruption is a function (planes, ...) -> planes, or (key, planes, ...) -> planes if it is random.
Planes are float32 [3, H, W] in [0, 1], and the result may lie outside. The further parameters are
its constants, whose values at the five severities the decorator states:

    @corruption(constants={"amount": (0.1, 0.2, 0.3, 0.4, 0.5)})
    def darken(planes: jax.Array, amount: float) -> jax.Array: ...

Constants are traced, so that one compiled program serves every severity. With `on_host=True` the
function takes and returns an image, uint8 [H, W, 3], and plain numbers instead.

Separate so that the modules of corruptions can import it without a cycle.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping

from jaxcifar.registry import Entry, Registry
from jaxcifar.spec import ConfigError

NUM_SEVERITIES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionEntry(Entry):
    """A registered corruption: a function (planes, ...) -> planes, or (key, planes, ...) -> planes
    if it is random. Planes are float32 [3, H, W] in [0, 1]; the result may lie outside. With
    `on_host`, (image, ...) -> image instead, uint8 [H, W, 3].
    """

    constants: Mapping[str, tuple[float, ...]]  # by parameter: a value for each severity
    is_standard: bool = False  # one of the benchmark's 15, whose mean is published
    on_host: bool = False
    is_available: Callable[[], bool] = lambda: True  # whether what it needs is installed

    def __post_init__(self):
        first = "image" if self.on_host else "planes"
        leading = ["key", first] if self.is_random else [first]
        names = list(inspect.signature(self.function).parameters)
        if names[: len(leading)] != leading or (self.on_host and self.is_random):
            raise ConfigError(
                f"the corruption {self.name!r} must take (planes, ...) or, if it is random, "
                f"(key, planes, ...), or, on the host, (image, ...), not ({', '.join(names)})"
            )
        if set(self.constants) != set(self.parameters) or any(
            len(values) != NUM_SEVERITIES for values in self.constants.values()
        ):
            raise ConfigError(
                f"the corruption {self.name!r} must state {NUM_SEVERITIES} values for each of its "
                f"constants: {', '.join(self.parameters) or 'none'}"
            )

    @property
    def is_random(self) -> bool:
        """Whether the function takes a PRNG key."""
        return "key" in inspect.signature(self.function).parameters

    def constants_at(self, severity: int) -> dict[str, float]:
        """Returns the constants at a severity from 1 to 5."""
        return {name: values[severity - 1] for name, values in self.constants.items()}


CORRUPTIONS = Registry(
    "corruption", reserved=("key", "planes", "image"), entry_type=CorruptionEntry
)
corruption = CORRUPTIONS.register
