"""Between torchvision's state dicts and our parameters, and the files that hold either.

There is one mapping and it is derived, not listed: the ResNets' attributes bear torchvision's
names, so a parameter's path is its key but for the last part, and a kernel's axes follow from
their number. A ported directory holds arrays/ (Orbax: parameters by path) and port.json (the
network's description, the source, its sha256, the tensors' shapes).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import cache, checkpoint, models
from jaxcifar.config import ConfigError
from jaxcifar.models import resnet

_TORCH_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_TORCH_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # vector; linear; convolution HWIO -> OIHW


@dataclasses.dataclass(frozen=True)
class Source:
    """A file on the Hugging Face hub: `revision` is a commit, `sha256` its model.safetensors'."""

    repo: str
    revision: str
    sha256: str


# torchvision's IMAGENET1K_V1 weights under torchvision's names.
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


def to_torchvision(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns a ResNet's state dict under torchvision's names, without num_batches_tracked
    (`load_state_dict(strict=True)` does not ask a plain dict for them).

    Raises:
        ValueError: the model is not one of torchvision's networks.
    """
    return {
        torch_name(name): np.ascontiguousarray(np.transpose(array, _TORCH_AXES[array.ndim]))
        for name, array in sorted(_arrays(model).items())
    }


def from_torchvision(
    model: nnx.Module, state_dict: Mapping[str, np.ndarray], *, skip: Iterable[str] = ()
) -> None:
    """Sets a ResNet's parameters and statistics, in place, from a state dict with torchvision's
    names. Every tensor is accounted for; num_batches_tracked is accepted and not needed.

    Args:
        model: the network; may be abstract (`nnx.eval_shape`), then it is no longer.
        state_dict: arrays by name, in PyTorch's layouts.
        skip: tensors, or modules ('conv1', 'fc'), that keep the value they have in the model,
            whatever the state dict has of them.

    Raises:
        ValueError: the model is not one of torchvision's networks.
        ConfigError: tensors are missing, extra or wrongly shaped, or a name in `skip` is in
            neither; the message lists them all.
    """
    skip = tuple(skip)
    expected = shapes(model)
    unknown = [s for s in skip if not any(_is_in(n, [s]) for n in (*expected, *state_dict))]
    if unknown:
        raise ConfigError(f"skip names what is nowhere: {', '.join(unknown)}")
    problems = _mismatch(
        {name: shape for name, shape in expected.items() if not _is_in(name, skip)},
        {name: np.shape(value) for name, value in state_dict.items() if not _is_in(name, skip)},
    )
    if problems:
        raise ConfigError(f"the state dict is not this network's:\n{_describe(problems)}")
    kept = {
        name: _from_torch(np.asarray(state_dict[torch_name(name)], array.dtype))
        for name, array in _leaves(model).items()
        if not _is_in(torch_name(name), skip)
    }
    nnx.update(model, models.insert(kept, nnx.to_pure_dict(nnx.state(model))))


def shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shapes, in PyTorch's layouts, of a ResNet's tensors by torchvision's names."""
    return {
        torch_name(name): tuple(leaf.shape[axis] for axis in _TORCH_AXES[len(leaf.shape)])
        for name, leaf in _leaves(model).items()
    }


def torch_name(name: str) -> str:
    """Returns torchvision's name of the parameter or statistic with this path of ours, such as
    layer1.0.bn1.running_var for layer1.0.bn1.var.
    """
    module, _, leaf = name.rpartition(".")
    return f"{module}.{_TORCH_NAMES[leaf]}"


# Files with a state dict


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns the tensors of a .safetensors or .pth file by name; no code in it is run.

    A .pth needs PyTorch. A hash in its name (resnet18-f37072fd.pth) must be the beginning of its
    sha256, as `torch.hub` demands.

    Raises:
        ConfigError: there is no such file, or it is not what its name claims.
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
    import safetensors.numpy

    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(safetensors.numpy.save(dict(state_dict), {"format": "pt"}))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors.numpy  # here and below: what only a port needs is imported by it

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(path)!r} is not a whole .safetensors file ({_line(error)}); download it again"
        ) from error


def _read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
    # The pattern and the comparison are those of torch.hub.load_state_dict_from_url.
    claimed = re.search(r"-([a-f0-9]*)\.", path.name)
    if claimed and not sha256(path).startswith(claimed[1]):
        raise ConfigError(
            f"{str(path)!r} is not what its name claims: its sha256 begins with "
            f"{sha256(path)[: len(claimed[1])]}; download it again"
        )
    try:
        import torch
    except ImportError as error:
        raise ConfigError(
            f"{str(path)!r} needs PyTorch to be read: pip install 'jaxcifar[torch]', or give a "
            ".safetensors file"
        ) from error
    try:
        with warnings.catch_warnings(action="ignore"):  # of old pickle protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no list; whatever it is, the file is at fault
        code = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        why = f"it refers to code, {code[1]}" if code else "it is damaged, or has code in it"
        raise ConfigError(
            f"{str(path)!r} is not a plain state dict: {why}; nothing in it was run"
        ) from error
    tensors = isinstance(found, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    )
    if not tensors:
        raise ConfigError(f"{str(path)!r} is not a state dict: it must hold tensors by name only")
    return {  # as float32 where they are floats: NumPy has no bfloat16
        name: (value.detach().float() if value.is_floating_point() else value).numpy()
        for name, value in found.items()
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
    logging.set_verbosity_error()  # its retries; what counts is said below
    try:
        path = huggingface_hub.hf_hub_download(
            source.repo, "model.safetensors", revision=source.revision
        )
    except OSError as error:  # all of the hub's errors, and a full disk
        why = _line(error)
        if isinstance(error, FileNotFoundError | ConnectionError):
            why = "no connection"
        raise ConfigError(
            f"the weights cannot be downloaded from https://huggingface.co/{source.repo} ({why}); "
            "offline: fetch model.safetensors from there on another machine, run "
            "scripts/port_torchvision.py --input=model.safetensors --output=DIR, and train with "
            "--config.model.pretrained=DIR"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    if sha256(path) != source.sha256:
        raise ConfigError(
            f"{path!r} is not the expected file: its sha256 is {sha256(path)}, not "
            f"{source.sha256}; delete it and start again"
        )
    return pathlib.Path(path)


# Ported directories


def port(path: str | os.PathLike, directory: str | os.PathLike, source: str = "") -> dict[str, Any]:
    """Writes a file's weights as a ported directory, which `model.pretrained` may name; returns
    the contents of its port.json.

    Args:
        path: a .safetensors or .pth file; see `read`.
        directory: where to; it must not exist, and appears whole or not at all.
        source: where the file is from (default: its name).

    Raises:
        ConfigError: the file is not a whole state dict of one of our ResNets, or the directory
            cannot be written.
    """
    directory = pathlib.Path(directory)
    if directory.exists():
        raise ConfigError(f"{str(directory)!r} exists already; choose another --output")
    state_dict = read(path)
    description = _recognise(state_dict, path)
    model = _abstract(description)
    from_torchvision(model, state_dict)
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
            checkpointer.save(part / "arrays", _arrays(model))
        (part / "port.json").write_text(json.dumps(about, indent=2) + "\n")
        part.rename(directory)
    except OSError as error:
        raise ConfigError(
            f"{str(directory)!r} cannot be written: {error.strerror}; choose another --output"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return about


def load_port(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns a ported directory's description of the network (the arguments of `models.create`)
    and its arrays by path.

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
            f"({_line(error)})"
        ) from error
    return description, arrays


def pretrained(config: ConfigDict, num_classes: int) -> dict[str, np.ndarray]:
    """Returns what `model.pretrained` gives the config's network, by path, and prints what it
    leaves out: conv1 where the stem is another, fc where the head or the classes are others.

    Raises:
        ConfigError: the weights cannot be had, or are another network's.
    """
    given = config.model
    if not given.pretrained:
        return {}
    directory = pathlib.Path(given.pretrained)
    if given.pretrained == "torchvision":
        source = TORCHVISION[given.name]
        directory = cache.directory() / "torchvision" / f"{given.name}-{source.sha256[:8]}"
        if not directory.exists():
            port(download(given.name), directory, f"https://huggingface.co/{source.repo}")
    ported, arrays = load_port(directory)
    width = given.width or 64
    if (ported["name"], ported["width"]) != (given.name, width):
        raise ConfigError(
            f"config.model.pretrained={given.pretrained!r} holds {ported['name']} of width "
            f"{ported['width']}, but the config's model is {given.name} of width {width}"
        )
    head = {"head": given.head, "num_classes": num_classes}
    if given.head == "mlp":
        head["head_hidden"] = list(given.head_hidden)
    left_out = []
    if ported["stem"] != given.stem:
        left_out.append("conv1")
    if any(ported.get(key) != value for key, value in head.items()):
        left_out.append("fc")
    kept = {name: array for name, array in arrays.items() if not _is_in(name, left_out)}
    replaced = f"; replaced, so left out: {', '.join(left_out)}" if left_out else ""
    print(f"{len(kept)} of {len(arrays)} tensors start from {directory}{replaced}")
    return kept


def _abstract(description: dict[str, Any]) -> nnx.Module:
    return nnx.eval_shape(lambda: models.create(**description, rngs=nnx.Rngs(0)))


def _recognise(state_dict: Mapping[str, np.ndarray], path: str | os.PathLike) -> dict[str, Any]:
    """Returns the arguments of `models.create` for the network whose state dict this is."""
    kernel = np.shape(state_dict.get("conv1.weight", ()))
    if len(kernel) != 4:
        raise ConfigError(
            f"{str(path)!r} holds no ResNet: there is no convolution 'conv1.weight' among its "
            f"{len(state_dict)} tensors ({', '.join(_few(sorted(state_dict)))})"
        )
    last = [
        (int(match[1] or -1), np.shape(value)[::-1])
        for name, value in state_dict.items()
        if (match := re.fullmatch(r"fc(?:\.(\d+))?\.weight", name)) and np.ndim(value) == 2
    ]
    linears = [shape for _, shape in sorted(last)]
    common = {
        "width": kernel[0],
        "stem": "imagenet" if kernel[-1] == 7 else "cifar",
        "head": "mlp" if len(linears) > 1 else "linear",
        "num_classes": linears[-1][1] if linears else 1000,
    }
    if len(linears) > 1:
        common["head_hidden"] = [shape[1] for shape in linears[:-1]]
        common["head_dropout"] = [0.0] * len(linears)  # not in the weights, nor needed for them
    found = {name: np.shape(value) for name, value in state_dict.items()}
    problems = {}
    for name in models.RESNETS:
        problems[name] = _mismatch(shapes(_abstract({"name": name, **common})), found)
        if not problems[name]:
            return {"name": name, **common}
    nearest = min(problems, key=lambda name: sum(map(len, problems[name].values())))
    raise ConfigError(
        f"{str(path)!r} is none of {', '.join(models.RESNETS)}; compared with {nearest}:\n"
        + _describe(problems[nearest], _few)
    )


def _mismatch(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    """Returns what is wrong with the shapes that were found, by kind of mistake."""
    counters = {n for n in found if n.endswith(".num_batches_tracked")}
    counters = {n for n in counters if f"{n.rpartition('.')[0]}.running_mean" in expected}
    problems = {
        "missing": sorted(set(expected) - set(found)),
        "extra": sorted(set(found) - set(expected) - counters),
        "wrongly shaped": [
            f"{name} {found[name]} instead of {expected[name]}"
            for name in sorted(set(expected) & set(found))
            if found[name] != expected[name]
        ],
    }
    return {kind: names for kind, names in problems.items() if names}


def _describe(
    problems: Mapping[str, list[str]], shorten: Callable[[list[str]], list[str]] = list
) -> str:
    return "\n".join(
        f"  {len(names)} {kind}: {', '.join(shorten(names))}" for kind, names in problems.items()
    )


def _few(names: list[str]) -> list[str]:
    return [*names[:3], "…"] if len(names) > 3 else names


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_in(name: str, modules: Iterable[str]) -> bool:
    """Returns whether the name is one of the modules, or of a tensor in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _from_torch(array: np.ndarray) -> np.ndarray:
    return np.transpose(array, np.argsort(_TORCH_AXES[array.ndim]))


def _leaves(model: nnx.Module) -> dict[str, Any]:
    """Returns a ResNet's parameters and statistics by path, as they are: abstract ones too."""
    if not isinstance(model, resnet.ResNet):
        raise ValueError(f"torchvision has no {type(model).__name__}: only ResNets can be mapped")
    return models.flatten(nnx.to_pure_dict(nnx.state(model)))


def _arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in _leaves(model).items()}
