"""The import graph of the package: no cycles, and the leaf is a leaf."""

import ast
import graphlib
import pathlib
import tomllib

import pytest

import jaxcifar

ROOT = pathlib.Path(jaxcifar.__file__).parent
FILES = {
    ".".join(("jaxcifar", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}

# All of PyTorch's schedules stand side by side, in short functions.
LONG_FILES = {"jaxcifar.schedules": 400}


def imports(name):
    """Returns the modules of the package that a module imports, inside functions too.

    `from package import name` is an import of the package only where `name` is not a module.
    """
    imported = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {module if module in FILES else node.module for module in modules}
    return (imported & set(FILES)) - {name}


def test_every_package_is_in_the_wheel():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    folders = {path.parent.relative_to(ROOT.parent) for path in FILES.values()}
    packages = {".".join(folder.parts) for folder in folders} | {"jaxcifar.configs"}
    assert packages == set(project["tool"]["setuptools"]["packages"])


def test_no_cycles():
    """Not even inside functions: a model's entry imports the network when it is created, and the
    network does not import the registry.
    """
    graph = {name: imports(name) for name in FILES}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def test_leaf_imports_nothing_from_the_package():
    assert imports("jaxcifar.spec") == set()
    assert imports("jaxcifar.registry") == {"jaxcifar.spec"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_are_short(name):
    num_lines = FILES[name].read_text().count("\n")
    assert num_lines <= LONG_FILES.get(name, 350)
