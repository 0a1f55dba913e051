"""Imports torchvision beside any build of PyTorch, for scripts and tests that compare with it."""

import functools
import sys
import types


@functools.cache
def import_torchvision() -> types.ModuleType:
    """Returns torchvision, with its models and transforms.

    Beside a CPU build of torch, PyPI's torchvision lacks its compiled operators, and the import
    raises RuntimeError for want of two definitions that models and transforms never use. Declaring
    them is enough.

    Raises:
        ImportError: torch or torchvision is not installed.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        torchvision.declared_library = library  # the declarations last as long as this object
    import torchvision.models
    import torchvision.transforms.v2

    return torchvision
