"""Ports a torchvision ResNet's weights to a directory for --config.model.pretrained.

python -m jaxcifar.port --output=DIR [--input=FILE.safetensors|FILE.pth]

The network, its width, stem and head are inferred from the file. A .pth needs PyTorch and is read
without running code; a hash in its name is checked. Without --input, torchvision's ImageNet weights
of ResNet-18 are downloaded from the Hugging Face hub.
"""

from absl import flags

from jaxcifar import cli
from jaxcifar.spec import ConfigError

_INPUT = flags.DEFINE_string("input", None, "a .safetensors or .pth file (default: download)")
_OUTPUT = flags.DEFINE_string("output", None, "the directory to create; it must not exist")


def main() -> int:
    """Ports the file and reports what it holds; returns the exit code."""
    if not _OUTPUT.value:
        raise ConfigError("--output is missing: name the directory to create")

    from jaxcifar import hub, pretrained  # lazy: --help and errors should not wait for JAX

    if _INPUT.value is None:
        source = pretrained.TORCHVISION["resnet18"]
        metadata = pretrained.port(hub.download(source), _OUTPUT.value, source.url)
    else:
        metadata = pretrained.port(_INPUT.value, _OUTPUT.value)
    model = metadata["model"]
    print(
        f"{model['name']} of width {model['width']}, {model['stem']} stem, {model['head']} head, "
        f"{model['num_classes']} classes\nsha256 {metadata['sha256']}\n"
        f"train from it with --config.model.pretrained={_OUTPUT.value}"
    )
    return 0


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(main, __doc__, (_INPUT, _OUTPUT))


if __name__ == "__main__":
    launch()
