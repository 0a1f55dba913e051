"""jaxcifar: train CIFAR-scale image classifiers in JAX. Importing it imports nothing heavy."""

__version__ = "0.1.0"
