import io
import pathlib
import socket
import subprocess
import sys

import cifar_files
import numpy as np
import pyarrow.parquet as pq
import pytest
from cifar_files import archive_files, records, write_archive, write_parquets

from jaxcifar import config as config_lib
from jaxcifar import data
from jaxcifar.data import cifar, cifar_archive, offline
from jaxcifar.spec import ConfigError


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """The formats are exact, the number of images is a hundredth of the official one."""
    for split, size in cifar_files.SIZES.items():
        monkeypatch.setitem(cifar_archive.SIZES, split, size)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """Returns a function that replaces the network with a dataset's mirror: its files are in
    `tmp_path`, and the original host is down.
    """

    def set_up(name):
        def open_url(url, timeout):
            if "toronto" in url:
                raise OSError("it is down")
            return io.BytesIO()

        monkeypatch.setattr("urllib.request.urlopen", open_url)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", write_parquets(name, tmp_path))

    return set_up


def test_offline_error_lists_alternatives(tmp_path):
    with pytest.raises(ConfigError) as error:
        cifar.load_records("cifar100", str(tmp_path))
    message = str(error.value)
    assert "there is no network" in message
    assert "config.data.archive=path/to/cifar-100-binary.tar.gz" in message
    assert "hf download --repo-type dataset uoft-cs/cifar100" in message
    assert "config.data.name=synthetic100" in message
    assert "--config" not in message
    assert "--config.data.name=synthetic100" in error.value.command_hint
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_mirror_matches_archive(tmp_path, mirror, capsys, name):
    mirror(name)
    np.testing.assert_array_equal(cifar.load_records(name, str(tmp_path)), records(name))
    output = capsys.readouterr().out
    assert f"(it is down); trying the mirror uoft-cs/{name}" in output
    assert "Decoding 500 images" in output
    # An archive of the same images matches the stored digest; another one is reported.
    files = archive_files(name, "binary")
    path = write_archive(tmp_path / "same.tar.gz", files)
    cifar.load_records(name, str(tmp_path), str(path))
    assert "Note" not in capsys.readouterr().out
    first = next(iter(files))
    changed = files | {first: files[first][:-1] + bytes([files[first][-1] ^ 1])}
    path = write_archive(tmp_path / "other.tar.gz", changed)
    cifar.load_records(name, str(tmp_path), str(path))
    assert "differ from those loaded earlier from the mirror" in capsys.readouterr().out


def test_decoded_arrays_are_cached(tmp_path, mirror, monkeypatch):
    mirror("cifar10")
    first = cifar.load_records("cifar10", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda **_: pytest.fail("downloaded"))
    np.testing.assert_array_equal(cifar.load_records("cifar10", str(tmp_path)), first)


def test_mirror_with_wrong_columns_or_labels_raises(tmp_path):
    write_parquets("cifar100", tmp_path)
    path = tmp_path / "cifar100" / "test-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["fine_label"]), path)
    with pytest.raises(ValueError, match="lacks the columns fine_label"):
        cifar.read_parquet("cifar100", path)
    column = table.column_names.index("fine_label")
    pq.write_table(table.set_column(column, "fine_label", [np.full(100, 100)]), path)
    with pytest.raises(ValueError, match="label 100"):
        cifar.read_parquet("cifar100", path)
    pq.write_table(table.set_column(column, "fine_label", [np.full(100, 256)]), path)
    with pytest.raises(ValueError, match="not integers from 0 to 255"):
        cifar.read_parquet("cifar100", path)


@pytest.fixture
def tfds_download(monkeypatch, tmp_path):
    """Returns a function that replaces the network with a dataset's original host: tfds finds the
    extracted official archive.
    """

    def set_up(name):
        for path, content in archive_files(name, "binary").items():
            (tmp_path / "extracted" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "extracted" / path).write_bytes(content)
        monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO())
        monkeypatch.setattr(
            "tensorflow_datasets.download.DownloadManager.download_and_extract",
            lambda self, url: str(tmp_path / "extracted"),
        )

    return set_up


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_tfds_prepares_and_reads_without_tensorflow(tmp_path, tfds_download, monkeypatch, name):
    tfds_download(name)
    np.testing.assert_array_equal(cifar.load_records(name, str(tmp_path)), records(name))
    assert "tensorflow" not in sys.modules
    (tmp_path / "jaxcifar" / f"{name}.npy").unlink()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert offline.find(name) == f"prepared by tfds in {tmp_path}"
    # What tfds has prepared comes before downloads.
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **_: pytest.fail("asked a host"))
    np.testing.assert_array_equal(cifar.load_records(name, str(tmp_path)), records(name))


def test_slow_host_is_skipped(monkeypatch):
    class Slow(io.BytesIO):
        def read(self, size):
            return b"x"

    clock = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: Slow())
    assert cifar.download_problem("https://host/file") == "only 0 kB/s"


def test_concurrent_processes_prepare_once(tmp_path):
    """Both get the records, and only one of them downloads and decodes."""
    write_parquets("cifar10", tmp_path)
    code = f"""
import io, time, urllib.request
import huggingface_hub
from jaxcifar.data import cifar, cifar_archive

def open_url(url, timeout):
    raise OSError("it is down")

def download(filename, **_):
    time.sleep(1)  # twice: longer than one process starts after the other
    return {str(tmp_path)!r} + "/" + filename

cifar_archive.SIZES.update({cifar_files.SIZES})
urllib.request.urlopen = open_url
huggingface_hub.hf_hub_download = download
print(len(cifar.load_records("cifar10", {str(tmp_path)!r})))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert all(output.endswith("600\n") for output in outputs)
    assert sum("trying the mirror" in output for output in outputs) == 1
    suffixes = {path.suffix for path in (tmp_path / "jaxcifar").iterdir()}
    assert suffixes == {".lock", ".json", ".npy"}


def test_unwritable_directory_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"is not writable .* config\.data\.dir"):
        cifar.load_records("cifar10", str(pathlib.Path(tmp_path) / "file" / "below"))


def test_wrong_number_of_records_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"tfds must have 600 images, but has 599"):
        cifar.check_records("cifar10", tmp_path, "tfds", records("cifar10")[1:])


def test_missing_archive_raises():
    config = config_lib.default()
    config.data.archive = "/no/such/archive.tar.gz"
    with pytest.raises(ConfigError, match="does not exist"):
        data.load(config)
