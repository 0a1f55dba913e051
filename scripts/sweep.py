"""Searches hyperparameters: the same command as `python -m jaxcifar.sweep`."""

from jaxcifar.sweep import __main__ as sweep

if __name__ == "__main__":
    sweep.launch()
