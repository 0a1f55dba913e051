"""What a run's results depend on beside its config: the versions that computed them."""

import importlib.metadata
import platform

from jaxcifar import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Returns the versions of jaxcifar, Python and the libraries that compute."""
    own = {"jaxcifar": __version__, "python": platform.python_version()}
    return own | {name: importlib.metadata.version(name) for name in _PACKAGES}
