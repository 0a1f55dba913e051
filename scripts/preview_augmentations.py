"""Draws what a config's augmentation does: the same command as `python -m jaxcifar.preview`."""

from jaxcifar import preview

if __name__ == "__main__":
    preview.launch()
