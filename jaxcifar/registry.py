"""Registries: the functions of one kind by name, such as all transforms or all schedules.

A function is registered where it is defined, by a decorator, and its signature says what it takes
(see `spec`). A user's config file registers its own in the same way.
"""

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaxcifar import spec
from jaxcifar.spec import ConfigError, Parameter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A registered function. Registries of functions with more to declare subclass it."""

    name: str
    function: Callable
    parameters: dict[str, Parameter]  # that configs and lines may set
    file: str  # where it is defined
    check: Callable[..., None] | None = None  # of several arguments together

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments to call the function with: the values that are set (not None) for
        its parameters, else the defaults. Unset required ones are omitted.
        """
        arguments = {}
        for name, parameter in self.parameters.items():
            value = values.get(name)
            if value is None and not parameter.is_required:
                value = parameter.default
            if value is not None:
                arguments[name] = value
        return arguments

    def call(self, values: Mapping[str, Any], **passed) -> Any:
        """Calls the function with its arguments, as `arguments`, and what it takes of `passed`."""
        taken = inspect.signature(self.function).parameters
        passed = {name: value for name, value in passed.items() if name in taken}
        return self.function(**passed, **self.arguments(values))

    def validate(self, values: Mapping[str, Any], prefix: str = "") -> None:
        """Checks values by name, one by one and against each other.

        Raises:
            ConfigError: naming the parameter (after `prefix`), the value and what is valid.
        """
        unknown = [name for name in values if name not in self.parameters]
        if unknown:
            raise ConfigError(
                f"{self.name} has no parameter {unknown[0]!r}; it has "
                f"{', '.join(self.parameters) or 'none'}"
            )
        spec.check_arguments(self.parameters, values, prefix)
        if self.check:
            try:
                self.check(**self.arguments(values))
            except ConfigError as error:
                raise ConfigError(f"{prefix}{error}") from None


class Registry(Mapping[str, Entry]):
    """Functions of one kind by name, such as all schedules."""

    def __init__(
        self,
        kind: str,
        *,
        reserved: Iterable[str] = (),
        required: Iterable[str] = (),
        taken: Iterable[str] = (),
        entry_type: type[Entry] = Entry,
    ):
        """Creates an empty registry.

        Args:
            kind: what its functions are called, such as "schedule".
            reserved: parameters that the callers pass, so that configs and lines cannot set them.
            required: those of them that every function must have.
            taken: names that no other parameter may have, since config keys of the group do.
            entry_type: the class of its entries.
        """
        self.kind = kind
        self.reserved, self.required, self.taken = tuple(reserved), tuple(required), tuple(taken)
        self._entry_type = entry_type
        self._entries: dict[str, Entry] = {}

    def register(self, function_or_name: Callable | str | None = None, /, **attributes) -> Callable:
        """Registers a function under a name, by default its own. A decorator, bare or called: with
        the name, with fields of the entry by keyword, or both. Returns the function, its arguments
        checked at every call.

        Every entry has the field `check`: a function of all the arguments that raises ConfigError
        where they do not go together. Registering a name again from the same file replaces it.

        Raises:
            ConfigError: another file has defined the name, or the signature is not valid.
        """
        if callable(function_or_name):
            return self._register(None, function_or_name, **attributes)
        return functools.partial(self._register, function_or_name, **attributes)

    def _register(self, name: str | None, function: Callable, **attributes) -> Callable:
        if not inspect.isfunction(inspect.unwrap(function)):
            raise ConfigError(f"a {self.kind} must be a function, not {function!r}")
        name, file = name or function.__name__, _file(function)
        if not name.isidentifier():
            raise ConfigError(f"the name of a {self.kind} must be an identifier, not {name!r}")
        if name in self and self[name].file != file:
            raise ConfigError(
                f"there is a {self.kind} {name!r} already, in {self[name].file}; "
                "choose another name"
            )
        missing = [p for p in self.required if p not in inspect.signature(function).parameters]
        if missing:
            raise ConfigError(f"the {self.kind} {name!r} must have a parameter {missing[0]!r}")
        declared = spec.parameters(function, unchecked=self.reserved)
        function = spec.checked(function, declared)
        declared = {key: value for key, value in declared.items() if key not in self.reserved}
        for key in declared:
            if key in self.taken:
                raise ConfigError(
                    f"the {self.kind} {name!r} cannot have a parameter {key!r}: there is a config "
                    "key of that name; choose another"
                )
        self._entries[name] = self._entry_type(
            name=name, function=function, parameters=declared, file=file, **attributes
        )
        return function

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class UnknownNameError(ConfigError, KeyError):
    """A name that is not in a registry."""

    def __init__(self, kind: str, name: str, names: Iterable[str]):
        near = suggest(name, names)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        super().__init__(f"there is no {kind} {name!r}; {hint}known: {', '.join(names)}")

    __str__ = ConfigError.__str__  # KeyError shows its message in quotes


def suggest(name: str, names: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Returns the names that `name` was probably meant to be: those that have it as one of their
    words, so that "flip" finds "random_flip" before "hflip"; else those spelled most alike.
    """
    names = list(names)
    same_word = [known for known in names if name in re.split(r"[_.]", known)]
    return same_word[:count] or difflib.get_close_matches(name, names, count, cutoff)


def _file(function: Callable) -> str:
    """Returns the file that defines a function; everything in a notebook counts as one file."""
    function = inspect.unwrap(function)
    return "__main__" if function.__module__ == "__main__" else function.__code__.co_filename
