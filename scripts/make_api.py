"""Writes docs/api.md, the reference of the Python interface, from docstrings and signatures.

python scripts/make_api.py
"""

import ast
import collections
import importlib
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from jaxcifar import config_keys, spec
from jaxcifar.registry import Registry

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "api.md"

# What users call: modules, their functions and classes, and their registry with its decorator
MODULES = {
    "config": "default load override validate changes describe to_json from_dict",
    "train": "train_and_evaluate DivergedError",
    "checkpoint": "load_model",
    "evaluate": "predict",
    "scores": "accuracy top_k_accuracy loss softmax log_softmax confusion_matrix class_accuracies "
    "group calibration fit_temperature summarize",
    "report": "write",
    "report.comparison": "write",
    "augment": "parse parse_views mixup cutmix",
    "corruptions": "corrupt generate available",
    "models": "create from_config",
    "data": "load read split Dataset Parts Splits",
    "optimizers": "create",
    "schedules": "",
    "losses": "cross_entropy jensen_shannon",
    "weights": "to_torchvision from_torchvision",
    "state_dict_files": "read write",
    "pretrained": "port",
    "picture": "write",
    "spec": "ConfigError at_least more_than between described",
}
REGISTRIES = {
    "augment": ("TRANSFORMS", "transform"),
    "corruptions": ("CORRUPTIONS", "corruption"),
    "models": ("MODELS", "model"),
    "data": ("DATASETS", "dataset"),
    "optimizers": ("OPTIMIZERS", "optimizer"),
    "schedules": ("SCHEDULES", "schedule"),
}


_HEAD = """# The Python interface

Import modules: `from jaxcifar import augment, train`. Under a decorator are the functions that are
registered with it, and their parameters: the default, which values are valid, and what they mean.
All keys of a config are in `jaxcifar train --help`. [The tour](tour.ipynb) shows how to use it.

`scripts/make_api.py` writes this page from the docstrings.
"""


def page() -> str:
    """Returns the page in GitHub's Markdown."""
    body = "\n\n".join(block for module in MODULES for block in _module(module)) + "\n"
    contents, seen = "", collections.Counter()
    for level, title in re.findall(r"^(##+) (.*)$", body, re.M):
        slug = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        anchor = f"{slug}-{seen[slug]}" if seen[slug] else slug  # as GitHub numbers equal titles
        seen[slug] += 1
        is_module = level == "##"
        short = title.removeprefix("jaxcifar.") if is_module else re.sub(r"[\w.]+\.", "", title)
        contents += ("\n- " if is_module else " · ") + f"[{short}](#{anchor})"
    return f"{_HEAD}{contents}\n\n{body}"


def public(module: str) -> Iterator[tuple[str, Any]]:
    """Yields a module's public functions and classes: (name, object)."""
    for name in MODULES[module].split():
        yield name, getattr(importlib.import_module(f"jaxcifar.{module}"), name)


def _module(name: str) -> Iterator[str]:
    """Yields the blocks of a module's part of the page."""
    module = importlib.import_module(f"jaxcifar.{name}")
    yield f"## jaxcifar.{name}"
    yield from _docs(module)
    for member_name, member in public(name):
        yield f"### {name}.{member_name}"
        yield f"```python\n{_signature(member)}\n```"
        yield from _docs(member)
        if inspect.isclass(member):
            yield from _methods(member)
    if name in REGISTRIES:
        registry, decorator = (getattr(module, attribute) for attribute in REGISTRIES[name])
        yield from _registry(f"{name}.{REGISTRIES[name][1]}", registry, decorator)
    if name == "spec":
        yield "### Types"
        yield "Of parameters of registered functions, beside int, float, bool, str, tuple, Literal:"
        named = {key: value for key, value in vars(spec).items() if hasattr(value, "__metadata__")}
        yield "\n".join(f"- `{key}`: {spec.describe(value)}" for key, value in named.items())


def _methods(member: type) -> Iterator[str]:
    """Yields a class's public methods and properties."""
    for name, method in vars(member).items():
        if name[0] != "_" and isinstance(method, property):
            yield f"- `{name}`: {_line(inspect.getdoc(method))}"
        elif name[0] != "_" and inspect.isfunction(method):
            call = re.sub(r"^def |self(, )?", "", _signature(method))
            yield f"- `{call}`: {_line(inspect.getdoc(method))}"


def _registry(title: str, registry: Registry, decorator: Callable) -> Iterator[str]:
    """Yields the decorator, what an entry declares, and the package's own entries."""
    entries = [e for e in registry.values() if e.function.__module__.startswith("jaxcifar.")]
    yield f"### @{title}"
    yield from _docs(decorator)
    yield f"```python\n{_signature(type(entries[0]))}\n```"
    yield from _docs(type(entries[0]))
    group = next((f"{g}." for g, v in config_keys.GROUPS.items() if v.registry is registry), "")
    for entry in entries:
        yield f"#### {entry.name}"
        if title == "augment.transform":  # the others' functions are called by the run
            yield f"```python\n{_signature(entry.function)}\n```"
        docs = list(_docs(entry.function, without="Args"))
        yield from (part for part in docs if not part.startswith("**"))
        constants = getattr(entry, "constants", {})
        lines = [
            f"- `{name}`: {', '.join(f'{value:g}' for value in constants[name])} by severity"
            if constants
            else _parameter(group + name, parameter)
            for name, parameter in entry.parameters.items()
        ]
        if lines:
            yield "\n".join(lines)
        yield from (part for part in docs if part.startswith("**"))  # errors


def _parameter(name: str, parameter: spec.Parameter) -> str:
    default = "required" if parameter.is_required else f"`{parameter.default!r}`"
    meaning = f": {_line(parameter.meaning)}" if parameter.meaning else ""
    return f"- `{name}` ({default}; {_line(parameter.valid)}){meaning}"


def _signature(member: Any) -> str:
    """Returns a function's signature as its source has it, or a class with its fields."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(member)))
    node, lines = ast.parse(source).body[0], source.splitlines()
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and inspect.isclass(member)]
    head += [line for field in fields for line in lines[field.lineno - 1 : field.end_lineno]]
    return "\n".join(head) if fields else "\n".join(head).removesuffix(":")


def _docs(member: Any, without: str = "") -> Iterator[str]:
    """Yields a docstring's paragraphs; its sections as lists, except for the one to leave out."""
    text = inspect.getdoc(member) or ""
    for part in re.split(r"\n\n(?=\S)", text):
        section = re.match(r"(Args|Returns|Raises):\n", part)
        if not section:
            is_code = part.startswith("python -m")
            yield f"```\n{part}\n```" if is_code else _escape(part)
        elif section[1] != without:
            items = re.findall(r"^    (\S+): (.*(?:\n     .*)*)", part, re.M)
            lines = [f"- `{name}`: {_line(meaning)}" for name, meaning in items]
            yield f"**{section[1]}**\n\n" + ("\n".join(lines) or _line(part[section.end() :]))


def _line(text: str) -> str:
    return _escape(" ".join(text.split()))


def _escape(text: str) -> str:
    """Escapes what Markdown would read as markup, outside of code."""
    parts = re.split(r"(`[^`]*`|^    .*$)", text, flags=re.M)
    return "".join(p if i % 2 else re.sub(r"([<*])", r"\\\1", p) for i, p in enumerate(parts))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
