"""Imports torchvision alongside any build of PyTorch, for what compares with it."""

import functools
import sys
import types


@functools.cache
def import_torchvision() -> types.ModuleType:
    """Returns torchvision, with its models and transforms.

    Alongside a CPU build of torch, PyPI's torchvision lacks its compiled operators, and the import
    raises RuntimeError because two operators are undefined. Models and transforms never use them:
    declaring them is enough.

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
