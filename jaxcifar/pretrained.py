"""Pretrained weights: loading what `model.pretrained` names, and ported directories.

A ported directory holds arrays/ (Orbax: parameters by path) and port.json (the network's
description, the source, its sha256, the tensors' shapes).
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import (
    array_files,
    cache,
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
        config: the config; with hf://, best one with the commit and sha256 (see `hub.pin`).
        class_names: the classes of the new data, in the order of the logits.

    Raises:
        ConfigError: the weights cannot be loaded, or are another network's.
    """
    pretrained = config.model.pretrained
    if not pretrained:
        return {}
    directory = pathlib.Path(pretrained)
    if pretrained == "torchvision":
        if config.model.name not in TORCHVISION:
            raise ConfigError(
                f"config.model.pretrained='torchvision' has no weights for {config.model.name!r}, "
                f"only for {', '.join(TORCHVISION)}"
            )
        directory = _ported(TORCHVISION[config.model.name])
    elif pretrained.startswith(hub.PREFIX):
        if not config.pretrained_sha256:  # no run has claimed the config
            config = hub.pin(config)
        source = hub.parse(config.model.pretrained)
        directory = _ported(dataclasses.replace(source, sha256=config.pretrained_sha256))
    if _is_workdir(directory):
        arrays, new = _read_run(directory, config, tuple(class_names))
    else:
        arrays, new = _read_port(directory, config, len(class_names))
    loaded = {name: array for name, array in arrays.items() if not weights.belongs_to(name, new)}
    note = f" (newly initialized: {', '.join(new)})" if new else ""
    print(f"loaded {len(loaded)} of {len(arrays)} tensors from {config.model.pretrained}{note}")
    return loaded


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
    generators = set(functional.flatten(nnx.to_pure_dict(nnx.state(model, nnx.RngState))))
    arrays = {name: array for name, array in arrays.items() if name not in generators}
    actual = {name: array.shape for name, array in arrays.items()}
    head, old_head = (
        {name: shape for name, shape in shapes.items() if weights.belongs_to(name, [entry.head])}
        for shapes in (expected, actual)
    )
    new = []
    if entry.in_torchvision and old.model.stem != config.model.stem:
        new.append("conv1")
    if head != old_head or tuple(progress.class_names) != class_names:
        new.append(entry.head)
    problems = weights.mismatch(
        *(
            {name: shape for name, shape in shapes.items() if not weights.belongs_to(name, new)}
            for shapes in (expected, actual)
        )
    )
    if problems:
        raise ConfigError(
            f"config.model.pretrained={str(directory)!r} is a run of {old.model.name} whose arrays "
            f"are not those of the config's {config.model.name}: "
            + weights.describe(problems, weights.few, "; ")
        )
    return arrays, new


def _read_port(
    directory: pathlib.Path, config: ConfigDict, num_classes: int
) -> tuple[Arrays, list[str]]:
    """Returns the arrays in a ported directory, and the modules of the config's ResNet that they do
    not fill.

    Raises:
        ConfigError: it is not a ported directory, or another network's.
    """
    description, arrays = load_port(directory)
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
    return arrays, new


# --- ported directories ---------------------------------------------------------------------------


def _ported(source: Source) -> pathlib.Path:
    """Returns the ported directory of a file on the hub, in the cache; it is made once.

    Raises:
        ConfigError: the file cannot be downloaded, or is none of our ResNets'.
    """
    name = f"{source.repo.replace('/', '--')}-{source.sha256[:8]}"
    directory = cache.directory() / "pretrained" / name
    if not directory.exists():
        file = hub.download(source)
        try:
            port(file, directory, source.url)
        except ConfigError:
            if not directory.exists():  # else another process has made it meanwhile
                raise
    return directory


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
