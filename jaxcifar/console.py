"""The command `jaxcifar`: the package's commands under one name, with their own flags."""

import importlib
import importlib.util
import sys

from jaxcifar import __version__
from jaxcifar.registry import suggest

# The module of each command, which has launch(), and what it does
COMMANDS = {
    "train": ("jaxcifar.main", "train and evaluate, or resume a run"),
    "evaluate": ("jaxcifar.evaluate", "score a run's model, or classify a folder of photos"),
    "report": ("jaxcifar.report", "write the report of a run, or compare several"),
    "sweep": ("jaxcifar.sweep", "search hyperparameters"),
    "port": ("jaxcifar.port", "port PyTorch weights, to train from them"),
    "export": ("jaxcifar.export", "export a run's best model for PyTorch"),
    "preview": ("jaxcifar.preview", "draw what a config's augmentation does"),
    "corruptions": ("jaxcifar.corruptions", "write the corruption benchmark of a config's data"),
    "parity": ("jaxcifar.parity", "compare with the installed PyTorch"),
    "doctor": ("jaxcifar.doctor", "say what is installed, what is missing, and whether it trains"),
}


def launch() -> None:
    """Runs the command that the first argument names, and exits."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print("jaxcifar COMMAND [FLAGS]\n\ncommands:")
        for command, (_, description) in COMMANDS.items():
            print(f"  {command:<13}{description}")
        print("\n`jaxcifar COMMAND --help` shows its flags, `jaxcifar --version` the version.")
        sys.exit(0)
    if name == "--version":
        print(f"jaxcifar {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        near = suggest(name, COMMANDS)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        print(f"error: there is no command {name!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    # Only this module: several define a flag --output
    module_name, _ = COMMANDS[name]
    is_package = importlib.util.find_spec(module_name).submodule_search_locations
    module = importlib.import_module(f"{module_name}.__main__" if is_package else module_name)
    module.__doc__ = _as_typed(module.__doc__, f"python -m {module_name}", f"jaxcifar {name}")
    sys.argv = [f"jaxcifar {name}", *arguments]
    module.launch()


def _as_typed(usage: str, documented: str, typed: str) -> str:
    """Returns a command's help with another form of the command, its flags aligned below it."""
    indent, aligned = " " * (len(documented) + 1), " " * (len(typed) + 1)
    return usage.replace(documented, typed).replace(f"\n{indent}", f"\n{aligned}")
