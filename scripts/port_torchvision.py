"""Ports a torchvision ResNet's weights: the same command as `python -m jaxcifar.port`."""

from jaxcifar import port

if __name__ == "__main__":
    port.launch()
