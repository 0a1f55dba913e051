import numpy as np
import pytest
from huggingface_hub import constants

from jaxcifar import manifest
from jaxcifar.data import cifar, offline


@pytest.fixture(autouse=True)
def nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_decoded_records_are_found_if_they_are_intact():
    assert offline.find("cifar10") == ""
    path = cifar.cached_records("cifar10", cifar.tfds_directory())
    path.parent.mkdir(parents=True)
    np.save(path, np.zeros(9, np.uint8))
    assert offline.find("cifar10") == ""
    manifest.write(path)
    assert offline.find("cifar10") == f"decoded in {path}"
    assert offline.find("cifar100") == ""
    path.write_bytes(path.read_bytes()[:-1])
    assert offline.find("cifar10") == ""


def test_the_mirrors_files_are_found_if_both_are_there(tmp_path):
    repository = tmp_path / "hub" / "datasets--uoft-cs--cifar100"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    folder = repository / "snapshots" / ("0" * 40) / "cifar100"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").touch()
    assert offline.find("cifar100") == ""
    (folder / "test-00000-of-00001.parquet").touch()
    assert offline.find("cifar100") == "in the Hugging Face cache"
    assert offline.find("cifar10") == ""
