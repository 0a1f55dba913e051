"""Exports a run's best model: the same command as `python -m jaxcifar.export`."""

from jaxcifar import export

if __name__ == "__main__":
    export.launch()
