import hashlib
import json
import shutil

import numpy as np
import pytest
from flax import nnx
from resnet_weights import WIDTH, abstract, assert_same, draw, port, ported_state_dict

from jaxcifar import data, parallel, pretrained, state_dict_files, weights
from jaxcifar.program import Program
from jaxcifar.spec import ConfigError


@pytest.fixture(scope="module")
def drawn():
    """The state dict of a narrow ResNet-18 with torchvision's stem and 1000 classes."""
    return draw(abstract())


@pytest.fixture
def file(drawn, tmp_path):
    path = tmp_path / "drawn.safetensors"
    state_dict_files.write(drawn, path)
    return path


@pytest.fixture(scope="module")
def ported(drawn, tmp_path_factory):
    """The directory of its port."""
    return port(drawn, tmp_path_factory.mktemp("pretrained"))


@pytest.fixture
def resnet_config(small_config, ported):
    """A config that starts from the ported weights, with other classes."""
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
def test_port_describes_its_network_and_is_bit_exact(name, arguments, tmp_path):
    head_dropout = (0.0,) * 3 if arguments["head"] == "mlp" else None
    state_dict = draw(abstract(name, **arguments, head_dropout=head_dropout))
    state_dict_files.write(state_dict, tmp_path / "file.safetensors")
    metadata = pretrained.port(tmp_path / "file.safetensors", tmp_path / "ported")
    assert metadata["model"].items() >= {"name": name, "width": WIDTH, **arguments}.items()
    assert json.loads((tmp_path / "ported" / "port.json").read_text()) == metadata
    digest = hashlib.sha256((tmp_path / "file.safetensors").read_bytes()).hexdigest()
    assert (metadata["source"], metadata["sha256"]) == ("file.safetensors", digest)
    assert metadata["shapes"] == {name: list(value.shape) for name, value in state_dict.items()}
    assert_same(ported_state_dict(tmp_path / "ported"), state_dict)


def test_port_does_not_overwrite(file, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="exists already; choose another directory"):
        pretrained.port(file, tmp_path / "taken")
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another directory"):
        pretrained.port(file, file / "below")


def test_port_of_a_damaged_file_leaves_no_directory(file, tmp_path):
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"cannot be read .*; download it again"):
        pretrained.port(file, tmp_path / "ported")
    assert not (tmp_path / "ported").exists()


def test_run_starts_from_the_ported_weights(resnet_config, drawn, capsys):
    resnet_config.model.stem = "cifar"
    names = tuple(map(str, range(100)))
    part = data.Dataset(np.zeros((50, 32, 32, 3), np.uint8), np.zeros(50, np.int32), names)
    program = Program(resnet_config, parallel.setup(resnet_config), data.Splits(part, part, part))
    state = program.init()
    output = capsys.readouterr().out
    assert "loaded 99 of 102 tensors from" in output
    assert "(newly initialized: conv1, fc)" in output
    model = nnx.merge(program.graphdefs.train, state.params, state.stats)
    start = weights.to_torchvision(model)
    replaced = ("conv1.weight", "fc.weight", "fc.bias")
    assert_same(start, drawn | {name: start[name] for name in replaced})
    assert [start[name].shape for name in replaced] == [(WIDTH, 3, 3, 3), (100, 64), (100,)]
    for name, fan_in in (("conv1.weight", 27), ("fc.weight", 64), ("fc.bias", 64)):
        # The largest of 100 or more draws from U(-b, b), b = fan_in**-0.5, falls below 0.8 b once
        # in 1e9 times.
        assert 0.8 < abs(start[name]).max() * fan_in**0.5 <= 1


def test_same_network_loads_every_tensor(resnet_config, tmp_path, capsys):
    arguments = {"stem": "cifar", "head": "mlp", "head_hidden": (32, 16)}
    state_dict = draw(abstract(num_classes=5, **arguments, head_dropout=(0.0,) * 3))
    resnet_config.model.pretrained = str(port(state_dict, tmp_path))
    resnet_config.model.stem = "cifar"
    resnet_config.model.head, resnet_config.model.head_hidden = "mlp", (32, 16)
    assert len(pretrained.load(resnet_config, 5)) == len(state_dict)
    assert "newly initialized" not in capsys.readouterr().out


def test_no_pretrained_weights_by_default(small_config):
    assert pretrained.load(small_config, 100) == {}


def test_torchvision_weights_are_ported_once(resnet_config, file, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    downloads = []
    monkeypatch.setattr(pretrained, "download", lambda name: downloads.append(name) or file)
    resnet_config.model.pretrained = "torchvision"
    first, again = (pretrained.load(resnet_config, 100) for _ in range(2))
    assert downloads == ["resnet18"]
    assert_same(first, again)


def test_weights_of_another_network_raise(resnet_config, file, tmp_path):
    resnet_config.model.name = "resnet34"
    with pytest.raises(ConfigError, match=r"holds resnet18 of width 8, .* resnet34 of width 8"):
        pretrained.load(resnet_config, 100)
    resnet_config.model.pretrained = str(tmp_path)
    with pytest.raises(ConfigError, match=r"not a directory created by .*jaxcifar\.port"):
        pretrained.load(resnet_config, 100)
    pretrained.port(file, tmp_path / "damaged")
    (tmp_path / "damaged" / "arrays" / "manifest.ocdbt").unlink()
    with pytest.raises(ConfigError, match="are damaged: port them again"):
        pretrained.load_port(tmp_path / "damaged")


# --- downloads ------------------------------------------------------------------------------------


def test_download_is_verified(file, monkeypatch):
    requests = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *a, **k: requests.append((a, k)) or str(file)
    )
    with pytest.raises(ConfigError, match=f"its sha256 is {state_dict_files.sha256(file)}"):
        pretrained.download("resnet18")
    source = pretrained.TORCHVISION["resnet18"]
    assert requests == [((source.repo, "model.safetensors"), {"revision": source.revision})]
    source = pretrained.Source("r", "c", state_dict_files.sha256(file))
    monkeypatch.setitem(pretrained.TORCHVISION, "resnet18", source)
    assert pretrained.download("resnet18") == file


def test_values_that_are_not_finite_are_not_ported(drawn, tmp_path):
    broken = drawn | {"conv1.weight": np.full_like(drawn["conv1.weight"], np.nan)}
    state_dict_files.write(broken, tmp_path / "broken.safetensors")
    with pytest.raises(ConfigError, match=r"not finite, in conv1\.weight$"):
        pretrained.port(tmp_path / "broken.safetensors", tmp_path / "ported")
    assert not (tmp_path / "ported").exists()


def test_head_without_classes_raises(drawn, tmp_path):
    empty = {name: array[:0] if name.startswith("fc.") else array for name, array in drawn.items()}
    state_dict_files.write(empty, tmp_path / "empty.safetensors")
    with pytest.raises(ConfigError, match="num_classes=0 is not valid"):
        pretrained.port(tmp_path / "empty.safetensors", tmp_path / "ported")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"model": 3}'])
def test_edited_description_raises(ported, tmp_path, content):
    shutil.copytree(ported, tmp_path / "ported")
    (tmp_path / "ported" / "port.json").write_text(content)
    with pytest.raises(ConfigError, match="are damaged: port them again"):
        pretrained.load_port(tmp_path / "ported")
