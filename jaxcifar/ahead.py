"""Compiling ahead of time: programs made in a background thread before they are needed."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import jax

Key = tuple[Any, ...]


class AheadOfTime:
    """A function to be jitted, whose programs can be compiled before it is called.

    A call compiles what has not been, as that of `jax.jit` would. Contexts of a thread, such as
    `with jax.default_matmul_precision(...)`, have no effect on what is compiled in the background;
    `jax.config.update` has.
    """

    def __init__(self, function: Callable, **options: Any):
        """Compiles nothing yet; the options are those of `jax.jit`.

        A program is found again by the shapes of the arguments that are arrays and the keyword
        arguments, which are static; the shapes in trees must not change.
        """
        self._jitted = jax.jit(function, **options)
        self._programs: dict[Key, concurrent.futures.Future[jax.stages.Compiled]] = {}

    def start(self, executor: concurrent.futures.Executor, *args: Any, **static: Any) -> None:
        """Has the program for these arguments compiled by an executor, unless it has been.

        Args:
            executor: of threads.
            *args: arrays or `jax.ShapeDtypeStruct`s, or trees of them.
            **static: the static arguments.
        """
        key = _key(args, static)
        if self._is_missing(key):
            self._programs[key] = executor.submit(self._compile, args, static)

    def __call__(self, *args: Any, **static: Any) -> Any:
        """Returns the function's value.

        Raises:
            BaseException: what compiling in the background raised.
        """
        key = _key(args, static)
        if self._is_missing(key):
            self._programs[key] = future = concurrent.futures.Future()
            future.set_result(self._compile(args, static))
        return self._programs[key].result()(*args)

    def programs(self) -> list[jax.stages.Compiled]:
        """Returns the programs compiled so far."""
        futures = [future for future in self._programs.values() if not future.cancelled()]
        return [future.result() for future in futures if future.done()]

    def _is_missing(self, key: Key) -> bool:
        return key not in self._programs or self._programs[key].cancelled()

    def _compile(self, args: tuple, static: dict[str, Any]) -> jax.stages.Compiled:
        return self._jitted.lower(*args, **static).compile()


def _key(args: tuple, static: dict[str, Any]) -> Key:
    shapes = tuple(x.shape for x in args if hasattr(x, "shape"))
    return shapes, tuple(static.items())
