"""Pretrained weights: downloads, ported directories, and loading `model.pretrained`.

A ported directory holds arrays/ (Orbax: parameters by path) and port.json (the network's
description, the source, its sha256, the tensors' shapes).
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import array_files, cache, errors, manifest, state_dict_files, weights
from jaxcifar.models import functional
from jaxcifar.spec import ConfigError, first_line


@dataclasses.dataclass(frozen=True)
class Source:
    """A model.safetensors on the Hugging Face hub: its repository, commit and sha256."""

    repo: str
    revision: str
    sha256: str

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"https://huggingface.co/{self.repo}"


# torchvision's IMAGENET1K_V1 weights under torchvision's names
TORCHVISION = {
    "resnet18": Source(
        "timm/resnet18.tv_in1k",
        "bbd144b3e5565108aad885f145491d11bc6ce807",
        "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    ),
    "resnet34": Source(
        "timm/resnet34.tv_in1k",
        "1b7b21cca82ff974d341713f777bf740c2db38c4",
        "0bb82595a564991a9d424708b33f5d843f5aaed7f6c0886ff10849ff97022235",
    ),
    "resnet50": Source(
        "timm/resnet50.tv_in1k",
        "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    ),
}


def load(config: ConfigDict, num_classes: int) -> dict[str, np.ndarray]:
    """Returns the pretrained arrays by path ({} if unset) and prints the tensors skipped: conv1 if
    the stems differ, fc if the heads or classes do.

    Raises:
        ConfigError: the weights cannot be loaded, or are another network's.
    """
    model_config = config.model
    if not model_config.pretrained:
        return {}
    directory = pathlib.Path(model_config.pretrained)
    if model_config.pretrained == "torchvision":
        if model_config.name not in TORCHVISION:
            raise ConfigError(
                f"config.model.pretrained='torchvision' has no weights for {model_config.name!r}, "
                f"only for {', '.join(TORCHVISION)}"
            )
        source = TORCHVISION[model_config.name]
        directory = cache.directory() / "torchvision" / f"{model_config.name}-{source.sha256[:8]}"
        if not directory.exists():
            port(download(model_config.name), directory, source.url)
    description, arrays = load_port(directory)
    width = model_config.width or 64
    if (description["name"], description["width"]) != (model_config.name, width):
        raise ConfigError(
            f"config.model.pretrained={model_config.pretrained!r} holds {description['name']} of "
            f"width {description['width']}, but the config's model is {model_config.name} of width "
            f"{width}"
        )
    head = {"head": model_config.head, "num_classes": num_classes}
    if model_config.head == "mlp":
        head["head_hidden"] = list(model_config.head_hidden)
    skipped = []
    if description["stem"] != model_config.stem:
        skipped.append("conv1")
    if any(description.get(key) != value for key, value in head.items()):
        skipped.append("fc")
    loaded = {k: array for k, array in arrays.items() if not weights.belongs_to(k, skipped)}
    note = f" (newly initialized: {', '.join(skipped)})" if skipped else ""
    print(f"loaded {len(loaded)} of {len(arrays)} tensors from {directory}{note}")
    return loaded


# --- downloads ------------------------------------------------------------------------------------


def download(name: str) -> pathlib.Path:
    """Returns the file with torchvision's ImageNet weights of 'resnet18', 'resnet34' or
    'resnet50', downloaded from the Hugging Face hub unless its cache has it.

    Raises:
        ConfigError: it cannot be downloaded, or is not the expected file.
    """
    import huggingface_hub
    from huggingface_hub.utils import logging

    source = TORCHVISION[name]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # suppress retry messages
    try:
        path = huggingface_hub.hf_hub_download(
            source.repo, "model.safetensors", revision=source.revision
        )
    except OSError as error:  # all of the hub's errors, and a full disk
        reason = first_line(error)
        if isinstance(error, FileNotFoundError | ConnectionError):
            reason = "no connection"
        raise ConfigError(
            f"the weights cannot be downloaded from {source.url} ({reason}); offline: fetch "
            "model.safetensors from there on another machine, run `python -m jaxcifar.port "
            "--input=model.safetensors --output=DIR`, and set config.model.pretrained to DIR"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    digest = state_dict_files.sha256(path)
    if digest != source.sha256:
        raise ConfigError(
            f"{path!r} is not the expected file: its sha256 is {digest}, not {source.sha256}; "
            "delete it and start again"
        )
    return pathlib.Path(path)


# --- ported directories ---------------------------------------------------------------------------


def port(path: str | os.PathLike, directory: str | os.PathLike, source: str = "") -> dict[str, Any]:
    """Writes a file's weights as a ported directory, for `model.pretrained`.

    Args:
        path: a .safetensors or .pth file; see `state_dict_files.read`.
        directory: must not exist; written atomically.
        source: where the file is from (default: its name).

    Returns:
        The contents of port.json; `model` has the arguments of `models.create`.

    Raises:
        ConfigError: the file is not a complete state dict of one of our ResNets, or the directory
            cannot be written.
    """
    directory = pathlib.Path(directory)
    if directory.exists():
        raise ConfigError(f"{str(directory)!r} exists already; choose another directory")
    state_dict = state_dict_files.read(path)
    description, model = weights.recognize(state_dict, path)
    broken = [n for n, value in sorted(state_dict.items()) if not np.isfinite(value).all()]
    if broken:
        raise ConfigError(
            f"{str(path)!r} has values that are not finite, in {', '.join(broken[:3])}"
            f"{', ...' if len(broken) > 3 else ''}"
        )
    weights.from_torchvision(model, state_dict)
    leaves = functional.flatten(nnx.to_pure_dict(nnx.state(model)))
    metadata = {
        "model": description,
        "source": source or pathlib.Path(path).name,
        "sha256": state_dict_files.sha256(path),
        "shapes": {name: list(np.shape(value)) for name, value in sorted(state_dict.items())},
    }
    temporary = directory.absolute().with_name(f"{directory.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        array_files.write(
            temporary / "arrays", {name: np.asarray(leaf) for name, leaf in leaves.items()}
        )
        (temporary / "port.json").write_text(json.dumps(metadata, indent=2) + "\n")
        manifest.write(temporary)
        temporary.rename(directory)
    except OSError as error:
        raise ConfigError(
            f"{str(directory)!r} cannot be written: {error.strerror}; choose another directory"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return metadata


def load_port(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns a ported directory's description of the network (the arguments of `models.create`
    but `rngs`) and its arrays by path.

    Raises:
        ConfigError: it is not a ported directory, or is damaged.
    """
    directory = pathlib.Path(directory)
    condition = manifest.check(directory)
    if condition == "unfinished":
        raise ConfigError(
            f"{str(directory)!r} is not a directory created by `python -m jaxcifar.port`"
        )
    if condition == "damaged":
        raise ConfigError(f"the ported weights in {str(directory)!r} are damaged: port them again")
    with errors.reading(f"the ported weights in {str(directory)!r}", "port them again"):
        description = json.loads((directory / "port.json").read_text(encoding="utf-8"))["model"]
        return description, array_files.read(directory / "arrays")
