"""What a run's results depend on beside its config: the versions that computed them."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

from jaxcifar import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Returns the versions of jaxcifar, Python and the libraries that compute."""
    own = {"jaxcifar": __version__, "python": platform.python_version()}
    return own | {name: importlib.metadata.version(name) for name in PACKAGES}


def describe() -> dict[str, Any]:
    """Returns the versions and the commit of the code that ran, as a run's summary holds them."""
    return {"versions": versions(), "git": git_commit()}


def git_commit() -> str | None:
    """Returns the commit of the checkout that this code is in, with ", changed" after it if tracked
    files differ; None where it is not in a checkout, or git is missing.
    """
    root = pathlib.Path(__file__).parent.parent
    if not (root / ".git").exists():  # else it may be in some other project's
        return None

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        changed = ", changed" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + changed
    except (OSError, subprocess.SubprocessError):
        return None
