"""torchvision, for the tests and the golden files' scripts."""

import types

import pytest

from jaxcifar.torchvision_compat import import_torchvision


def torchvision() -> types.ModuleType:
    """Returns torchvision, or skips the test if it or PyTorch is not installed."""
    try:
        return import_torchvision()
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
