"""Writes a run's best model under torchvision's names, to a file or to the Hugging Face hub.

python -m jaxcifar.export --workdir=runs/part3 [--output=FILE.safetensors]
                          [--push_to_hub=OWNER/NAME [--private]] [--config=FILE.py]

The equivalent torch module loads the file with `load_state_dict(strict=True)`; the README shows
how. --push_to_hub commits model.safetensors with a model card, the config, the classes' names and
the scores to a repository, which is created if it is missing (with --private, so that only you see
it); log in first (hf auth login). --config names the run's config file, if it registers the model.
"""

import json
import pathlib
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from jaxcifar import cli, hub
from jaxcifar.spec import ConfigError

if TYPE_CHECKING:
    from flax import nnx

_OUTPUT = flags.DEFINE_string("output", None, "the .safetensors file to write")
_PUSH = flags.DEFINE_string("push_to_hub", None, "the repository on the hub, OWNER/NAME")
_PRIVATE = flags.DEFINE_bool("private", False, "create that repository as a private one")


def main() -> int:
    """Exports the model; returns the exit code."""
    if not cli.WORKDIR.value:
        raise ConfigError("--workdir is missing: name the run to export")
    if not _OUTPUT.value and not _PUSH.value:
        raise ConfigError(
            "--output is missing: name a *.safetensors file, or a repository with --push_to_hub"
        )
    if _OUTPUT.value and not _OUTPUT.value.endswith(".safetensors"):
        raise ConfigError(f"--output={_OUTPUT.value!r} must be a file named *.safetensors")
    if _PRIVATE.value and not _PUSH.value:
        raise ConfigError("--private has no effect without --push_to_hub=OWNER/NAME")
    if _PUSH.value:
        hub.check_can_push(_PUSH.value)

    # lazy: --help and errors should not wait for JAX
    from jaxcifar import checkpoint, state_dict_files, weights

    model, config = checkpoint.load_model(cli.WORKDIR.value, config_file=cli.CONFIG.value)
    state_dict = weights.to_torchvision(model)
    if _OUTPUT.value:
        state_dict_files.write(state_dict, _OUTPUT.value)
        print(
            f"{config.model.name}, {config.model.stem} stem, {config.model.head} head: "
            f"{_OUTPUT.value}"
        )
    if _PUSH.value:
        files = {hub.WEIGHTS: state_dict_files.to_bytes(state_dict), **_describe(model, config)}
        source = hub.push(_PUSH.value, files, private=_PRIVATE.value)
        print(
            f"{source.url}\nstart from it with --config.model.pretrained="
            f"{hub.PREFIX}{source.repo}@{source.revision}"
        )
    return 0


def _describe(model: "nnx.Module", config: ConfigDict) -> dict[str, bytes]:
    """Returns the files that describe a run's model on the hub, by name."""
    from jaxcifar import config as config_lib
    from jaxcifar import model_card
    from jaxcifar.report import run_files

    run = run_files.read(cli.WORKDIR.value)
    config = model_card.shareable(config)
    files = {
        "README.md": model_card.make(_PUSH.value, config, model.class_names, run),
        "config.json": config_lib.to_json(config),
        "classes.json": json.dumps(list(model.class_names), indent=1) + "\n",
    }
    if run.summary:  # else evaluation.json may be that of an earlier epoch
        path = pathlib.Path(cli.WORKDIR.value) / "evaluation.json"
        files["evaluation.json"] = path.read_text(encoding="utf-8")
    return {name: text.encode(errors="replace") for name, text in files.items()}


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(main, __doc__, (cli.WORKDIR, _OUTPUT, _PUSH, _PRIVATE, cli.CONFIG))


if __name__ == "__main__":
    launch()
