"""Writes a run's best model as a .safetensors file with torchvision's names.

python scripts/export_torchvision.py --workdir=runs/part3 --output=FILE.safetensors

`load_state_dict(strict=True)` of the equivalent torch module takes it; the README shows how.
"""

import pathlib

from absl import flags

from jaxcifar import cli
from jaxcifar.config import ConfigError

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's work directory")
_OUTPUT = flags.DEFINE_string("output", None, "the .safetensors file to write")


def main(_: list[str]) -> int:
    """Exports the model; returns the exit code."""
    if not _WORKDIR.value:
        raise ConfigError("--workdir is missing: name the run to export")
    if not _OUTPUT.value or not _OUTPUT.value.endswith(".safetensors"):
        raise ConfigError(f"--output={_OUTPUT.value!r} must be a file named *.safetensors")

    from jaxcifar import checkpoint, weights  # here: --help and errors need not wait for JAX

    model, config = checkpoint.load_model(_WORKDIR.value)
    if config.model.name not in weights.TORCHVISION:
        raise ConfigError(
            f"{_WORKDIR.value!r} holds a {config.model.name}, which torchvision does not have; "
            f"only {', '.join(weights.TORCHVISION)} can be exported"
        )
    output = pathlib.Path(_OUTPUT.value)
    weights.write(weights.to_torchvision(model), output)
    print(f"{config.model.name}, {config.model.stem} stem, {config.model.head} head: {output}")
    return 0


if __name__ == "__main__":
    cli.launch(main, __doc__, (_WORKDIR, _OUTPUT))
