"""State dicts in files: reads .safetensors and .pth without running code, writes .safetensors."""

import hashlib
import os
import pathlib
import re
import warnings
from collections.abc import Mapping

import numpy as np

from jaxcifar import errors, optional
from jaxcifar.spec import ConfigError


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns the tensors of a .safetensors or .pth file by name; no code in it is run.

    A .pth needs PyTorch. A hash in its name (resnet18-f37072fd.pth) must be a prefix of its sha256,
    as in `torch.hub`.

    Raises:
        ConfigError: there is no such file, it is damaged or not a state dict, its hash does not
            match, or PyTorch is missing.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt"):
        return _read_pth(path)
    raise ConfigError(f"{str(path)!r} has an unknown file type: expected .safetensors, .pth or .pt")


def write(state_dict: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Writes a state dict as a .safetensors file.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(state_dict))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def to_bytes(state_dict: Mapping[str, np.ndarray]) -> bytes:
    """Returns the content of a state dict's .safetensors file."""
    import safetensors.numpy  # lazy, here and below: only reading and writing need it

    return safetensors.numpy.save(dict(state_dict), {"format": "pt"})


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    with errors.reading(f"the .safetensors file {str(path)!r}", "download it again"):
        return safetensors.numpy.load_file(path)


def _read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
    # The pattern and the comparison are as in torch.hub.load_state_dict_from_url.
    match = re.search(r"-([a-f0-9]*)\.", path.name)
    if match and not (digest := sha256(path)).startswith(match[1]):
        raise ConfigError(
            f"{str(path)!r} does not match the hash in its name: sha256 is {digest}; download it "
            "again"
        )
    try:
        import torch
    except ImportError as error:
        raise ConfigError(
            f"reading {str(path)!r} needs PyTorch; use a .safetensors file, or: "
            f"{optional.install('torch')}"
        ) from error
    try:
        with warnings.catch_warnings(action="ignore"):  # old pickle protocols warn
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents no exceptions; blame the file
        code = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        reason = f"it references code, {code[1]}" if code else "it is damaged or contains code"
        raise ConfigError(
            f"{str(path)!r} is not a plain state dict: {reason}; nothing in it was run"
        ) from error
    is_state_dict = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )
    if not is_state_dict:
        raise ConfigError(f"{str(path)!r} is not a state dict: expected a dict of tensors")
    with errors.reading(f"the state dict {str(path)!r}", "save plain, dense tensors"):
        return {  # floats as float32: NumPy has no bfloat16
            name: (value.detach().float() if value.is_floating_point() else value).numpy()
            for name, value in content.items()
        }


def sha256(path: str | os.PathLike) -> str:
    """Returns a file's sha256 in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
