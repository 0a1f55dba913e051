"""The photographs of frost, which are another package's: imagecorruptions (Apache-2.0).

The package is found and not imported: it needs setuptools' pkg_resources, which is gone.
"""

import functools
import importlib.util
import pathlib

import numpy as np
from PIL import Image

from jaxcifar import errors, optional
from jaxcifar.spec import ConfigError

_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


def are_installed() -> bool:
    """Returns whether the package is installed."""
    return importlib.util.find_spec("imagecorruptions") is not None


@functools.cache
def load() -> tuple[np.ndarray, np.ndarray]:
    """Returns the first five of the package's six photographs, as the benchmark, at a fifth of
    their size: uint8 [5, 3, H, W], padded with zeros, and their own (H, W), int [5, 2].

    Raises:
        ConfigError: the package is not installed, or a file cannot be read.
    """
    spec = importlib.util.find_spec("imagecorruptions")
    if spec is None:
        raise ConfigError(
            "frost needs the photographs of a package that is not installed: "
            f"{optional.install('imagecorruptions')}"
        )
    photos = []
    for name in _FILES:
        path = pathlib.Path(spec.submodule_search_locations[0]) / "frost" / name
        with errors.reading(f"the photograph {str(path)!r}", "install imagecorruptions again"):
            pixels = np.asarray(Image.open(path).convert("RGB"))
        # what OpenCV's linear interpolation picks at a fifth: the middle one of five pixels
        photos.append(pixels[2::5, 2::5].transpose(2, 0, 1))
    sizes = np.array([photo.shape[1:] for photo in photos])
    largest = sizes.max(0)
    padded = [np.pad(p, [(0, 0), *((0, n) for n in largest - p.shape[1:])]) for p in photos]
    return np.stack(padded), sizes
