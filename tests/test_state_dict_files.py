import hashlib
import os
import pickle
import sys

import numpy as np
import pytest
from resnet_weights import assert_same

from jaxcifar import state_dict_files
from jaxcifar.spec import ConfigError


@pytest.fixture
def state_dict():
    rng = np.random.default_rng(0)
    return {
        "conv1.weight": rng.normal(size=(32, 3, 3, 3)).astype(np.float32),
        "bn1.num_batches_tracked": np.array(7),
    }


class Code:
    """Code that must not run when a pickle is read."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (os.mkdir, (str(self.witness),))


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_round_trip(state_dict, tmp_path):
    path = tmp_path / "new" / "file.safetensors"
    state_dict_files.write(state_dict, path)
    assert_same(state_dict_files.read(path), state_dict)
    assert state_dict_files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match="cannot be written"):
        state_dict_files.write(state_dict, path / "below")


def test_damaged_or_wrong_safetensors_raise(state_dict, tmp_path):
    witness = tmp_path / "ran"
    state_dict_files.write(state_dict, tmp_path / "truncated.safetensors")
    truncate(tmp_path / "truncated.safetensors")
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    (tmp_path / "empty.safetensors").touch()
    for name in ("truncated", "pickle", "empty"):
        with pytest.raises(ConfigError, match=r"cannot be read .*; download it again"):
            state_dict_files.read(tmp_path / f"{name}.safetensors")
    assert not witness.exists()
    (tmp_path / "file.bin").touch()
    for name, message in (
        ("none.safetensors", "there is no file"),
        ("file.bin", "unknown file type"),
    ):
        with pytest.raises(ConfigError, match=message):
            state_dict_files.read(tmp_path / name)


@pytest.mark.torch
def test_pth_files_are_read_or_rejected_without_running_code(state_dict, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    good = tmp_path / "good.pth"
    torch.save(tensors, good)
    assert_same(state_dict_files.read(good), state_dict)
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    named = good.rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    assert_same(state_dict_files.read(named), state_dict)

    bad = tmp_path / "resnet18-00000000.pth"
    named.rename(bad)
    with pytest.raises(ConfigError, match=f"the hash in its name: sha256 is {digest}"):
        state_dict_files.read(bad)
    truncate(bad.rename(good))
    with pytest.raises(ConfigError, match="it is damaged"):
        state_dict_files.read(good)
    witness = tmp_path / "ran"
    torch.save({"conv1.weight": Code(witness)}, good)
    with pytest.raises(ConfigError, match=r"references code, \w+.mkdir; nothing in it was run"):
        state_dict_files.read(good)
    good.write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    with pytest.raises(ConfigError, match="not a plain state dict"):
        state_dict_files.read(good)
    assert not witness.exists()
    torch.save({"state_dict": tensors}, good)
    with pytest.raises(ConfigError, match="expected a dict of tensors"):
        state_dict_files.read(good)


def test_pth_without_pytorch_raises_with_an_install_hint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "file.pth").touch()
    with pytest.raises(ConfigError, match=r"needs PyTorch; .* pip install .*pytorch\.org/whl/cpu"):
        state_dict_files.read(tmp_path / "file.pth")


@pytest.mark.torch
def test_tensors_without_plain_values_raise(tmp_path):
    torch = pytest.importorskip("torch")
    dense = torch.ones(2, 2)
    for index, tensor in enumerate(
        (
            dense.to_sparse(),
            torch.ones(2, 2, device="meta"),
            torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
        )
    ):
        torch.save({"conv1.weight": tensor}, tmp_path / f"{index}.pth")
        with pytest.raises(ConfigError, match=rf"{index}\.pth"):
            state_dict_files.read(tmp_path / f"{index}.pth")
