"""Pretrained weights: loading what `model.pretrained` names, and ported directories.

A ported directory holds arrays/ (Orbax: parameters by path) and port.json (the network's
description, the source, its sha256, the tensors' shapes).
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import (
    array_files,
    checkpoint,
    errors,
    hub,
    manifest,
    models,
    state_dict_files,
    weights,
)
from jaxcifar import config as config_lib
from jaxcifar.hub import Source
from jaxcifar.models import functional
from jaxcifar.run import seed_directories
from jaxcifar.spec import ConfigError

Arrays = dict[str, np.ndarray]  # by path, such as layer1.0.conv1.kernel
Value = TypeVar("Value")

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


def load(config: ConfigDict, class_names: Sequence[str]) -> Arrays:
    """Returns the pretrained arrays by path ({} if `model.pretrained` is unset), and prints how
    many, and which modules have none: conv1 if the stems differ, the output layer if it or the
    classes do.

    Args:
        config: the config; hf:// in one that no run has claimed is looked up again (`hub.pin`).
        class_names: the classes of the new data, in the order of the logits.

    Raises:
        ConfigError: the weights cannot be loaded, or are another network's.
    """
    if not config.model.pretrained:
        return {}
    if config.model.pretrained.startswith(hub.PREFIX) and not config.pretrained_sha256:
        config = hub.pin(config)
    directory = pathlib.Path(config.model.pretrained)
    if source := _source(config):
        metadata, arrays = _convert(hub.download(source), source.url)
        new = _new_modules(metadata["model"], config, len(class_names))
    elif _is_workdir(directory):
        arrays, new = _read_run(directory, config, tuple(class_names))
    else:
        description, arrays = load_port(directory)
        new = _new_modules(description, config, len(class_names))
    loaded = _without(arrays, new)
    note = f" (newly initialized: {', '.join(new)})" if new else ""
    print(f"loaded {len(loaded)} of {len(arrays)} tensors from {config.model.pretrained}{note}")
    return loaded


def _source(config: ConfigDict) -> Source | None:
    """Returns the file on the hub that `model.pretrained` names; None if it names a directory."""
    if config.model.pretrained != "torchvision":
        source = hub.parse(config.model.pretrained)
        return source and dataclasses.replace(source, sha256=config.pretrained_sha256)
    if config.model.name not in TORCHVISION:
        raise ConfigError(
            f"config.model.pretrained='torchvision' has no weights for {config.model.name!r}, "
            f"only for {', '.join(TORCHVISION)}"
        )
    return TORCHVISION[config.model.name]


def _is_workdir(directory: pathlib.Path) -> bool:
    """Returns whether a directory is that of a run, or of several seeds', finished or not."""
    names = ("checkpoints", "config.json")
    return any((directory / name).exists() for name in names) or bool(seed_directories(directory))


def _read_run(
    directory: pathlib.Path, config: ConfigDict, class_names: tuple[str, ...]
) -> tuple[Arrays, list[str]]:
    """Returns the arrays of a run's best model, and the modules of the config's that they do not
    fill.

    Raises:
        ConfigError: the run has none, or they differ elsewhere.
    """
    progress, arrays = checkpoint.read_best(directory)
    old, entry = config_lib.from_dict(progress.config), models.MODELS[config.model.name]
    model = nnx.eval_shape(
        lambda: models.from_config(config, num_classes=len(class_names), rngs=nnx.Rngs(0))
    )
    expected = functional.shapes(model)
    actual = {name: array.shape for name, array in arrays.items()}
    head = [name for name in {*expected, *actual} if weights.belongs_to(name, [entry.head])]
    if not set(head) & set(expected):
        raise ConfigError(
            f"the model {entry.name!r} is registered with head={entry.head!r}, and has no such "
            "layer"
        )
    new = []
    if entry.in_torchvision and old.model.stem != config.model.stem:
        new.append("conv1")
    if tuple(progress.class_names) != class_names or any(
        expected.get(name) != actual.get(name) for name in head
    ):
        new.append(entry.head)
    problems = weights.mismatch(_without(expected, new), _without(actual, new))
    if problems:
        raise ConfigError(
            f"config.model.pretrained={str(directory)!r} is a run of {old.model.name} whose arrays "
            f"are not those of the config's {config.model.name}: "
            + weights.describe(problems, weights.few, "; ")
        )
    return arrays, new


def _without(values: Mapping[str, Value], modules: Sequence[str]) -> dict[str, Value]:
    """Returns the values by path but for those in the modules."""
    return {name: x for name, x in values.items() if not weights.belongs_to(name, modules)}


def _new_modules(description: dict[str, Any], config: ConfigDict, num_classes: int) -> list[str]:
    """Returns the modules of the config's ResNet that another one's weights do not fill.

    Args:
        description: the other's, as in port.json.
        config: the config.
        num_classes: that of the config's.

    Raises:
        ConfigError: it is another network.
    """
    model_config, width = config.model, config.model.width or 64
    if (description["name"], description["width"]) != (model_config.name, width):
        raise ConfigError(
            f"config.model.pretrained={model_config.pretrained!r} holds {description['name']} of "
            f"width {description['width']}, but the config's model is {model_config.name} of width "
            f"{width}"
        )
    head = {"head": model_config.head, "num_classes": num_classes}
    if model_config.head == "mlp":
        head["head_hidden"] = list(model_config.head_hidden)
    new = []
    if description["stem"] != model_config.stem:
        new.append("conv1")
    if any(description.get(key) != value for key, value in head.items()):
        new.append("fc")
    return new


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
    metadata, arrays = _convert(path, source or pathlib.Path(path).name)
    temporary = directory.absolute().with_name(f"{directory.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        array_files.write(temporary / "arrays", arrays)
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


def _convert(path: str | os.PathLike, source: str) -> tuple[dict[str, Any], Arrays]:
    """Returns what the port of a file holds: the contents of port.json, and the arrays; see `port`
    for the errors.
    """
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
        "source": source,
        "sha256": state_dict_files.sha256(path),
        "shapes": {name: list(np.shape(value)) for name, value in sorted(state_dict.items())},
    }
    return metadata, {name: np.asarray(leaf) for name, leaf in leaves.items()}


def load_port(directory: str | os.PathLike) -> tuple[dict[str, Any], Arrays]:
    """Returns a ported directory's description of the network (the arguments of `models.create`
    but `rngs`) and its arrays by path.

    Raises:
        ConfigError: it is not a ported directory, or is damaged.
    """
    directory = pathlib.Path(directory)
    condition = manifest.check(directory)
    if condition == "unfinished":
        raise ConfigError(
            f"{str(directory)!r} is neither the work directory of a run nor one made by "
            "python -m jaxcifar.port"
        )
    if condition == "damaged":
        raise ConfigError(f"the ported weights in {str(directory)!r} are damaged: port them again")
    with errors.reading(f"the ported weights in {str(directory)!r}", "port them again"):
        description = json.loads((directory / "port.json").read_text(encoding="utf-8"))["model"]
        return description, array_files.read(directory / "arrays")
