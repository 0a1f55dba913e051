"""Writes a run's best model as a .safetensors file with torchvision's names.

python -m jaxcifar.export --workdir=runs/part3 --output=FILE.safetensors
                          [--config=FILE.py]

The equivalent torch module loads it with `load_state_dict(strict=True)`; the README shows how.
--config names the run's config file, if it registers the model.
"""

from absl import flags

from jaxcifar import cli
from jaxcifar.spec import ConfigError

_OUTPUT = flags.DEFINE_string("output", None, "the .safetensors file to write")


def main() -> int:
    """Exports the model; returns the exit code."""
    if not cli.WORKDIR.value:
        raise ConfigError("--workdir is missing: name the run to export")
    if not _OUTPUT.value or not _OUTPUT.value.endswith(".safetensors"):
        raise ConfigError(f"--output={_OUTPUT.value!r} must be a file named *.safetensors")

    # lazy: --help and errors should not wait for JAX
    from jaxcifar import checkpoint, state_dict_files, weights

    model, config = checkpoint.load_model(cli.WORKDIR.value, config_file=cli.CONFIG.value)
    state_dict_files.write(weights.to_torchvision(model), _OUTPUT.value)
    print(
        f"{config.model.name}, {config.model.stem} stem, {config.model.head} head: {_OUTPUT.value}"
    )
    return 0


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(main, __doc__, (cli.WORKDIR, _OUTPUT, cli.CONFIG))


if __name__ == "__main__":
    launch()
