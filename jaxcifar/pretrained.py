"""Weights from files: reading and writing them, downloads, ported directories, and what
`model.pretrained` gives a network.

A ported directory holds arrays/ (Orbax: parameters by path) and port.json (the network's
description, the source, its sha256, the tensors' shapes).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import cache, checkpoint, weights
from jaxcifar.models import functional
from jaxcifar.spec import ConfigError


@dataclasses.dataclass(frozen=True)
class Source:
    """A file on the Hugging Face hub: `revision` is a commit, `sha256` its model.safetensors'."""

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
    """Returns what `model.pretrained` gives the config's network, by path ({} where it names
    nothing), and prints what it leaves out: conv1 where the stems differ, fc where the heads or
    the classes do.

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
                f"config.model.pretrained='torchvision' has no weights for {model_config.name!r}; "
                f"it has those of {', '.join(TORCHVISION)}"
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
    left_out = []
    if description["stem"] != model_config.stem:
        left_out.append("conv1")
    if any(description.get(key) != value for key, value in head.items()):
        left_out.append("fc")
    used = {name: array for name, array in arrays.items() if not weights.is_in(name, left_out)}
    replaced = f"; replaced, so left out: {', '.join(left_out)}" if left_out else ""
    print(f"{len(used)} of {len(arrays)} tensors start from {directory}{replaced}")
    return used


# --- files with a state dict ----------------------------------------------------------------------


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns the tensors of a .safetensors or .pth file by name; no code in it is run.

    A .pth needs PyTorch. A hash in its name (resnet18-f37072fd.pth) must be the beginning of its
    sha256, as `torch.hub` demands.

    Raises:
        ConfigError: there is no such file, or it is not what its name says.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt"):
        return _read_pth(path)
    raise ConfigError(f"{str(path)!r} must end in .safetensors, .pth or .pt, to say what it is")


def write(state_dict: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Writes a state dict as a .safetensors file.

    Raises:
        ConfigError: the file cannot be written.
    """
    import safetensors.numpy  # here and below: imported only where files are read or written

    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(safetensors.numpy.save(dict(state_dict), {"format": "pt"}))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(path)!r} is not a whole .safetensors file ({_first_line(error)}); download it "
            "again"
        ) from error


def _read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
    # The pattern and the comparison are those of torch.hub.load_state_dict_from_url.
    match = re.search(r"-([a-f0-9]*)\.", path.name)
    if match and not (digest := sha256(path)).startswith(match[1]):
        raise ConfigError(
            f"{str(path)!r} is not what its name says: its sha256 begins with "
            f"{digest[: len(match[1])]}; download it again"
        )
    try:
        import torch
    except ImportError as error:
        raise ConfigError(
            f"{str(path)!r} needs PyTorch to be read: pip install 'jaxcifar[torch]', or use a "
            ".safetensors file"
        ) from error
    try:
        with warnings.catch_warnings(action="ignore"):  # of old pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no list; whatever it is, the file is at fault
        code = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        reason = f"it refers to code, {code[1]}" if code else "it is damaged, or contains code"
        raise ConfigError(
            f"{str(path)!r} is not a plain state dict: {reason}; nothing in it was run"
        ) from error
    is_state_dict = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )
    if not is_state_dict:
        raise ConfigError(f"{str(path)!r} is not a state dict: it must hold tensors by name only")
    return {  # as float32 where they are floats: NumPy has no bfloat16
        name: (value.detach().float() if value.is_floating_point() else value).numpy()
        for name, value in content.items()
    }


def sha256(path: str | os.PathLike) -> str:
    """Returns a file's sha256 in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(name: str) -> pathlib.Path:
    """Returns the file with torchvision's ImageNet weights of 'resnet18', 'resnet34' or
    'resnet50', downloaded from the Hugging Face hub unless its cache has it.

    Raises:
        ConfigError: it cannot be downloaded, or is not the file that is expected.
    """
    import huggingface_hub
    from huggingface_hub.utils import logging

    source = TORCHVISION[name]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # not a line for every retry: the error below says what matters
    try:
        path = huggingface_hub.hf_hub_download(
            source.repo, "model.safetensors", revision=source.revision
        )
    except OSError as error:  # all of the hub's errors, and a full disk
        reason = _first_line(error)
        if isinstance(error, FileNotFoundError | ConnectionError):
            reason = "no connection"
        raise ConfigError(
            f"the weights cannot be downloaded from {source.url} ({reason}); offline: fetch "
            "model.safetensors from there on another machine, run scripts/port_torchvision.py "
            "--input=model.safetensors --output=DIR, and set config.model.pretrained to DIR"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    digest = sha256(path)
    if digest != source.sha256:
        raise ConfigError(
            f"{path!r} is not the expected file: its sha256 is {digest}, not {source.sha256}; "
            "delete it and start again"
        )
    return pathlib.Path(path)


# --- ported directories ---------------------------------------------------------------------------


def port(path: str | os.PathLike, directory: str | os.PathLike, source: str = "") -> dict[str, Any]:
    """Writes a file's weights as a ported directory, which `model.pretrained` may name.

    Args:
        path: a .safetensors or .pth file; see `read`.
        directory: where to; it must not exist, and appears whole or not at all.
        source: where the file is from (default: its name).

    Returns:
        The contents of the directory's port.json; `model` has the arguments of `models.create`.

    Raises:
        ConfigError: the file is not a whole state dict of one of our ResNets, or the directory
            cannot be written.
    """
    directory = pathlib.Path(directory)
    if directory.exists():
        raise ConfigError(f"{str(directory)!r} exists already; choose another directory")
    state_dict = read(path)
    description, model = weights.recognize(state_dict, path)
    weights.from_torchvision(model, state_dict)
    leaves = functional.flatten(nnx.to_pure_dict(nnx.state(model)))
    about = {
        "model": description,
        "source": source or pathlib.Path(path).name,
        "sha256": sha256(path),
        "shapes": {name: list(np.shape(value)) for name, value in sorted(state_dict.items())},
    }
    part = directory.absolute().with_name(f"{directory.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(
                part / "arrays", {name: np.asarray(leaf) for name, leaf in leaves.items()}
            )
        (part / "port.json").write_text(json.dumps(about, indent=2) + "\n")
        part.rename(directory)
    except OSError as error:
        raise ConfigError(
            f"{str(directory)!r} cannot be written: {error.strerror}; choose another directory"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return about


def load_port(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns a ported directory's description of the network (the arguments of `models.create`
    but `rngs`) and its arrays by path.

    Raises:
        ConfigError: it is not a ported directory, or is damaged.
    """
    directory = pathlib.Path(directory)
    try:
        description = json.loads((directory / "port.json").read_text())["model"]
        arrays = checkpoint.read_arrays(directory / "arrays")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(directory)!r} is not a directory that scripts/port_torchvision.py made "
            f"({_first_line(error)})"
        ) from error
    return description, arrays


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
