"""torchvision, for the tests and scripts that compare with it."""

import functools
import types

import pytest


@functools.cache
def torchvision() -> types.ModuleType:
    """Returns torchvision, or skips the test where it or PyTorch is not installed.

    A torchvision whose compiled operators do not fit the installed PyTorch raises RuntimeError
    when it imports. Models and transforms do not need these operators; declaring the ones that
    the import asks for is enough.
    """
    torch = pytest.importorskip("torch")
    try:
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        torchvision.declared = library  # without it the declarations would end here
    return torchvision
