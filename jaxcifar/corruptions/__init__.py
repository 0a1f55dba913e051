"""The common corruptions of images: Hendrycks & Dietterich 2019, arXiv:1903.12261, at CIFAR scale.

`corrupt` applies one at a severity from 1 to 5, `generate` all of them. Every corruption is
declared where it is defined, by the decorator `corruption`. `python -m jaxcifar.corruptions` writes
the benchmark's files for a config's test images.
"""

from jaxcifar.corruptions.apply import EXTRA, STANDARD, available, corrupt, generate
from jaxcifar.corruptions.registry import CORRUPTIONS, NUM_SEVERITIES, corruption

__all__ = [
    "CORRUPTIONS",
    "EXTRA",
    "NUM_SEVERITIES",
    "STANDARD",
    "available",
    "corrupt",
    "corruption",
    "generate",
]
