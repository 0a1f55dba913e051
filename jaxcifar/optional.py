"""The packages that jaxcifar can do without: what each is for, and how to install it."""

from typing import NamedTuple


class Package(NamedTuple):
    """An optional package."""

    purpose: str
    install: str


PACKAGES = {
    "torch": Package(
        "porting .pth files, and comparisons with PyTorch",
        "pip install --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.*' "
        "'torchvision==0.28.*' (PyPI's torch brings gigabytes of CUDA packages)",
    ),
    "optuna": Package("sweeps", "pip install 'optuna>=4.9'"),
    "imagecorruptions": Package("the corruption frost", "pip install --no-deps imagecorruptions"),
    "tensorboard": Package("reading what config.tensorboard=True logs", "pip install tensorboard"),
}


def install(name: str) -> str:
    """Returns the command that installs a package."""
    return PACKAGES[name].install
