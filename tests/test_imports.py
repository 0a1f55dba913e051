"""The import graph of the package: no circles, and the leaf is a leaf."""

import ast
import graphlib
import pathlib

import pytest

import jaxcifar

ROOT = pathlib.Path(jaxcifar.__file__).parent
FILES = {
    ".".join(("jaxcifar", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}


def imports(name):
    """Returns the modules of the package that a module imports, inside functions too.

    `from package import name` is an import of the package only where `name` is not a module.
    """
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {module if module in FILES else node.module for module in modules}
    return (found & set(FILES)) - {name}


def test_no_module_imports_itself_through_others():
    """A model's row imports the network when it is created, and the network does not import the
    rows: so there is no circle even inside functions.
    """
    graph = {name: imports(name) for name in FILES}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail("imports in a circle: " + " <- ".join(error.args[1]))


def test_the_leaf_imports_nothing_of_the_package():
    assert imports("jaxcifar.spec") == set()
    assert imports("jaxcifar.registry") == {"jaxcifar.spec"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_are_short_or_say_why(name):
    """At most 350 lines, or 400 where the module's docstring gives the reason."""
    source = FILES[name].read_text()
    length = source.count("\n")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    assert length <= (400 if "long file" in docstring else 350)
