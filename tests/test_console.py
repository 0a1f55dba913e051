import importlib.util
import subprocess
import sys

import pytest

import jaxcifar
from jaxcifar import console

# Shows the help of each command in a process of its own, which begins with what all of them import.
HELP = """
import os, sys
from jaxcifar import cli, console
for name in sys.argv[1:]:
    print(f"--- {name}", flush=True)
    if not os.fork():
        sys.argv = ["jaxcifar", name, "--help"]
        try:
            console.launch()
        finally:
            print("with JAX" if "jax" in sys.modules else "without JAX")
    assert os.wait()[1] == 0, name
"""


def test_every_command_shows_its_help_as_it_was_typed_and_needs_no_jax():
    modules = {name: module for name, (module, _) in console.COMMANDS.items()}
    names = [name for name in modules if importlib.util.find_spec(modules[name])]
    assert set(modules) - set(names) <= {"parity"}
    command = [sys.executable, "-c", HELP, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name, text in zip(names, done.stdout.split("--- ")[1:], strict=True):
        assert f"\njaxcifar {name}" in text
        assert f"python -m {modules[name]}" not in text
        if name != "corruptions":  # its package registers them with JAX
            assert text.endswith("\nwithout JAX\n")


def test_continuation_lines_of_the_usage_stay_aligned():
    usage = "Does it.\n\npython -m a.b --x=X\n              [--y=Y]\n\nMore.\n"
    typed = console._as_typed(usage, "python -m a.b", "a b")
    assert typed == "Does it.\n\na b --x=X\n    [--y=Y]\n\nMore.\n"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_command_it_lists_them(call_command, arguments):
    code, out, err = call_command(console.launch, *arguments)
    assert (code, err) == (0, "")
    for name, (_, description) in console.COMMANDS.items():
        assert f"  {name:<13}{description}\n" in out


def test_version(call_command):
    code, out, _ = call_command(console.launch, "--version")
    assert (code, out) == (0, f"jaxcifar {jaxcifar.__version__}\n")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("trian", "did you mean train?"), ("--config=part1", "the commands are train, evaluate")],
)
def test_another_command_is_an_error_of_one_line(call_command, name, hint):
    code, out, err = call_command(console.launch, name)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: there is no command {name!r}; {hint}")
    assert len(err.splitlines()) == 1


def test_python_m_jaxcifar_is_the_same_command():
    command = [sys.executable, "-m", "jaxcifar", "export", "--output=x.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: --workdir is missing: name the run to export\n"
