"""Where config files are: in the current directory, in ./configs, and those of jaxcifar itself."""

import pathlib

_PACKAGE = pathlib.Path(__file__).parent
# The folder is inside an installed package, and beside it in a checkout
SHIPPED = (_PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent) / "configs"


def find(path: str) -> pathlib.Path | None:
    """Returns the config file of a path or a name, None if there is none.

    Args:
        path: a file; or "part1", "part1.py" or "configs/part1.py": one in ./configs, or else one of
            jaxcifar's own.
    """
    file, configs = pathlib.Path(path), pathlib.Path("configs")
    candidates = [file]
    if file.name == str(path):
        for folder in (configs, SHIPPED):
            candidates += [folder / path, folder / f"{path}.py"]
    elif file.parent == configs:
        candidates.append(SHIPPED / file.name)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def names() -> list[str]:
    """Returns the names of all files in ./configs and of jaxcifar's own, sorted."""
    files = (*pathlib.Path("configs").glob("*.py"), *SHIPPED.glob("*.py"))
    return sorted({file.stem for file in files})


def portable(file: pathlib.Path) -> str:
    """Returns the path of a config file as any machine can find it: jaxcifar's own are named as in
    a checkout, such as "configs/part1.py".
    """
    return f"configs/{file.name}" if file.parent == SHIPPED else str(file)
