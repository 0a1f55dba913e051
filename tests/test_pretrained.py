import hashlib
import json
import os
import pickle
import sys

import numpy as np
import pytest
from resnet_weights import WIDTH, abstract, assert_same, draw, port, ported_state_dict

from jaxcifar import data, parallel, pretrained, weights
from jaxcifar.models import functional
from jaxcifar.program import Program
from jaxcifar.spec import ConfigError


@pytest.fixture(scope="module")
def drawn():
    """The state dict of a narrow ResNet-18 with torchvision's stem and 1000 classes."""
    return draw(abstract())


@pytest.fixture
def file(drawn, tmp_path):
    path = tmp_path / "drawn.safetensors"
    pretrained.write(drawn, path)
    return path


@pytest.fixture(scope="module")
def ported(drawn, tmp_path_factory):
    """The directory of its port."""
    return port(drawn, tmp_path_factory.mktemp("pretrained"))


@pytest.fixture
def resnet_config(small_config, ported):
    """A config that starts from the ported weights; its classes are others."""
    small_config.model.name = "resnet18"
    small_config.model.width = WIDTH
    small_config.model.stem = "imagenet"
    small_config.model.pretrained = str(ported)
    return small_config


# --- ported directories ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"num_classes": 1000, "stem": "imagenet", "head": "linear"}),
        (
            "resnet50",
            {"num_classes": 7, "stem": "cifar", "head": "mlp", "head_hidden": [6, 4]},
        ),
    ],
)
def test_a_port_describes_its_network_and_keeps_every_bit(name, arguments, tmp_path):
    head_dropout = (0.0,) * 3 if arguments["head"] == "mlp" else None
    state_dict = draw(abstract(name, **arguments, head_dropout=head_dropout))
    pretrained.write(state_dict, tmp_path / "file.safetensors")
    about = pretrained.port(tmp_path / "file.safetensors", tmp_path / "ported")
    assert about["model"].items() >= {"name": name, "width": WIDTH, **arguments}.items()
    assert json.loads((tmp_path / "ported" / "port.json").read_text()) == about
    digest = hashlib.sha256((tmp_path / "file.safetensors").read_bytes()).hexdigest()
    assert (about["source"], about["sha256"]) == ("file.safetensors", digest)
    assert about["shapes"] == {name: list(value.shape) for name, value in state_dict.items()}
    assert_same(ported_state_dict(tmp_path / "ported"), state_dict)


def test_ported_directories_are_not_overwritten_and_appear_whole(file, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="exists already; choose another directory"):
        pretrained.port(file, tmp_path / "taken")
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another directory"):
        pretrained.port(file, file / "below")


def test_a_run_starts_from_exactly_the_ported_weights(resnet_config, drawn, capsys):
    resnet_config.model.stem = "cifar"
    names = tuple(map(str, range(100)))
    part = data.Dataset(np.zeros((50, 32, 32, 3), np.uint8), np.zeros(50, np.int32), names)
    program = Program(resnet_config, parallel.setup(resnet_config), data.Splits(part, part, part))
    state = program.init()
    output = capsys.readouterr().out
    assert "99 of 102 tensors start from" in output
    assert "left out: conv1, fc" in output
    start = weights.to_torchvision(functional.merge(program.graphdefs, state.params, state.stats))
    replaced = ("conv1.weight", "fc.weight", "fc.bias")
    assert_same(start, drawn | {name: start[name] for name in replaced})
    assert [start[name].shape for name in replaced] == [(WIDTH, 3, 3, 3), (100, 64), (100,)]
    for name, fan_in in (("conv1.weight", 27), ("fc.weight", 64), ("fc.bias", 64)):
        # The largest of 100 or more draws from U(-b, b), b = fan_in**-0.5, falls below 0.8 b once
        # in 1e9 times.
        assert 0.8 < abs(start[name]).max() * fan_in**0.5 <= 1


def test_nothing_is_left_out_of_the_same_network(resnet_config, tmp_path, capsys):
    arguments = {"stem": "cifar", "head": "mlp", "head_hidden": (32, 16)}
    state_dict = draw(abstract(num_classes=5, **arguments, head_dropout=(0.0,) * 3))
    resnet_config.model.pretrained = str(port(state_dict, tmp_path))
    resnet_config.model.stem = "cifar"
    resnet_config.model.head, resnet_config.model.head_hidden = "mlp", (32, 16)
    assert len(pretrained.load(resnet_config, 5)) == len(state_dict)
    assert "left out" not in capsys.readouterr().out


def test_no_pretrained_weights_by_default(small_config):
    assert pretrained.load(small_config, 100) == {}


def test_torchvision_is_ported_once_and_then_cached(resnet_config, file, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    downloads = []
    monkeypatch.setattr(pretrained, "download", lambda name: downloads.append(name) or file)
    resnet_config.model.pretrained = "torchvision"
    first, again = (pretrained.load(resnet_config, 100) for _ in range(2))
    assert downloads == ["resnet18"]
    assert_same(first, again)


def test_another_networks_weights_are_refused(resnet_config, file, tmp_path):
    resnet_config.model.name = "resnet34"
    with pytest.raises(ConfigError, match=r"holds resnet18 of width 8, .* resnet34 of width 8"):
        pretrained.load(resnet_config, 100)
    resnet_config.model.pretrained = str(tmp_path)
    with pytest.raises(ConfigError, match="is not a directory that scripts/port_torchvision"):
        pretrained.load(resnet_config, 100)
    pretrained.port(file, tmp_path / "damaged")
    (tmp_path / "damaged" / "arrays" / "manifest.ocdbt").unlink()
    with pytest.raises(ConfigError, match="is not a directory that scripts/port_torchvision"):
        pretrained.load_port(tmp_path / "damaged")


# --- files that are not what they say -------------------------------------------------------------


class Code:
    """What a pickle must not run."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (os.mkdir, (str(self.witness),))


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_damaged_or_wrong_safetensors_are_refused(file, tmp_path):
    cut(file)
    witness = tmp_path / "ran"
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    (tmp_path / "empty.safetensors").touch()
    for name in ("drawn", "pickle", "empty"):
        with pytest.raises(ConfigError, match=r"is not a whole \.safetensors file"):
            pretrained.port(tmp_path / f"{name}.safetensors", tmp_path / "ported")
    assert not witness.exists()
    assert not (tmp_path / "ported").exists()
    (tmp_path / "file.bin").touch()
    for name, message in (("none.safetensors", "there is no file"), ("file.bin", "must end in")):
        with pytest.raises(ConfigError, match=message):
            pretrained.read(tmp_path / name)


@pytest.mark.torch
def test_pth_files_are_read_and_refused_without_running_code(drawn, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in drawn.items()}
    good = tmp_path / "good.pth"
    torch.save(tensors, good)
    assert_same(pretrained.read(good), drawn)
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    named = good.rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    assert_same(pretrained.read(named), drawn)

    bad = tmp_path / "resnet18-00000000.pth"
    named.rename(bad)
    with pytest.raises(ConfigError, match=f"its sha256 begins with {digest[:8]}"):
        pretrained.read(bad)
    cut(bad.rename(good))
    with pytest.raises(ConfigError, match="it is damaged"):
        pretrained.read(good)
    witness = tmp_path / "ran"
    torch.save({"conv1.weight": Code(witness)}, good)
    with pytest.raises(ConfigError, match=r"refers to code, \w+.mkdir; nothing in it was run"):
        pretrained.read(good)
    good.write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    with pytest.raises(ConfigError, match="not a plain state dict"):
        pretrained.read(good)
    assert not witness.exists()
    torch.save({"state_dict": tensors}, good)
    with pytest.raises(ConfigError, match="tensors by name only"):
        pretrained.read(good)


def test_a_pth_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "file.pth").touch()
    with pytest.raises(ConfigError, match=r"jaxcifar\[torch\]"):
        pretrained.read(tmp_path / "file.pth")


# --- the download ---------------------------------------------------------------------------------


def test_a_download_is_checked(file, monkeypatch):
    requests = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *a, **k: requests.append((a, k)) or str(file)
    )
    with pytest.raises(ConfigError, match=f"its sha256 is {pretrained.sha256(file)}"):
        pretrained.download("resnet18")
    source = pretrained.TORCHVISION["resnet18"]
    assert requests == [((source.repo, "model.safetensors"), {"revision": source.revision})]
    source = pretrained.Source("r", "c", pretrained.sha256(file))
    monkeypatch.setitem(pretrained.TORCHVISION, "resnet18", source)
    assert pretrained.download("resnet18") == file
