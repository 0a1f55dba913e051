import io
import os
import pathlib
import pickle
import socket
import struct
import subprocess
import sys
import tarfile

import huggingface_hub
import numpy as np
import pytest

from jaxcifar import cifar, cifar_archive, data, train
from jaxcifar import config as config_lib
from jaxcifar.config import ConfigError

FORMS = [(name, form) for name in ("cifar10", "cifar100") for form in ("binary", "python")]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """The formats are exact, the number of images is a hundredth of the official one."""
    monkeypatch.setitem(cifar_archive.SIZES, "train", 500)
    monkeypatch.setitem(cifar_archive.SIZES, "test", 100)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("the network is cut")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def records(name):
    """The records that every form below is to give: learnable, each image different."""
    rng = np.random.default_rng(0)
    fine = np.arange(600) % (10 if name == "cifar10" else 100)
    images = rng.integers(0, 60, (600, 32, 32, 3)) + (fine % 10 * 19)[:, None, None, None]
    labels = [fine] if name == "cifar10" else [fine, cifar_archive.FINE_TO_COARSE[fine]]
    parts = [np.stack(labels, axis=1), images.reshape(600, -1)]
    return np.concatenate(parts, axis=1).astype(np.uint8)


def planes(name, part):
    """Images as both archives store them: red, green and blue planes, uint8 [N, 3072]."""
    images = part[:, cifar_archive.num_labels(name) :].reshape(-1, 32, 32, 3)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(-1, 3072))


def text2(text):
    """A text as Python 2 pickled it."""
    data = text if isinstance(text, bytes) else text.encode()
    short = len(data) < 256
    return (b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data


def list2(items):
    return b"](" + b"".join(items) + b"e"


def array2(array):
    """A uint8 array [N, M] as Python 2 and the NumPy of its time pickled it."""
    rows, columns = (b"J" + struct.pack("<i", n) for n in array.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
        + rows
        + columns
        + b"\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89"
        + text2(array.tobytes())
        + b"tb"
    )


def dict2(entries):
    body = b"".join(text2(key) + value for key, value in entries.items())
    return b"\x80\x02}(" + body + b"u."


def numbers2(column):
    return list2([b"K" + bytes([value]) for value in column.tolist()])


def python_file(name, part, title):
    keys = ["labels"] if name == "cifar10" else ["fine_labels", "coarse_labels"]
    entries = {"batch_label": text2(title)}
    entries |= {key: numbers2(part[:, i]) for i, key in enumerate(keys)}
    entries["data"] = array2(planes(name, part))
    entries["filenames"] = list2([text2(f"image_{i:05d}.png") for i in range(len(part))])
    return dict2(entries)


def binary_file(name, part):
    labels = part[:, : cifar_archive.num_labels(name)][:, ::-1]
    return np.concatenate([labels, planes(name, part)], axis=1).tobytes()


def archive_files(name, form):
    """The members of an archive in the official layout: content by path."""
    all_records = records(name)
    names = cifar_archive.class_names(name)
    coarse = list(cifar_archive.CIFAR100_SUPERCLASSES)
    if name == "cifar10":
        parts = {f"data_batch_{i + 1}": all_records[100 * i : 100 * i + 100] for i in range(5)}
        parts["test_batch"] = all_records[500:]
        folder = "cifar-10-batches-"
        if form == "binary":
            files = {f"{folder}bin/{k}.bin": binary_file(name, v) for k, v in parts.items()}
            return files | {f"{folder}bin/batches.meta.txt": ("\n".join(names) + "\n\n").encode()}
        files = {f"{folder}py/{k}": python_file(name, v, k) for k, v in parts.items()}
        meta = {"label_names": list2(map(text2, names))}
        return files | {f"{folder}py/batches.meta": dict2(meta)}
    parts = {"train": all_records[:500], "test": all_records[500:]}
    if form == "binary":
        files = {f"cifar-100-binary/{k}.bin": binary_file(name, v) for k, v in parts.items()}
        for key, values in (("fine", names), ("coarse", coarse)):
            files[f"cifar-100-binary/{key}_label_names.txt"] = ("\n".join(values) + "\n").encode()
        return files
    files = {f"cifar-100-python/{k}": python_file(name, v, k) for k, v in parts.items()}
    meta = {"fine_label_names": names, "coarse_label_names": coarse}
    return files | {
        "cifar-100-python/meta": dict2({k: list2(map(text2, v)) for k, v in meta.items()})
    }


def write_archive(path, files):
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_parquets(name, folder):
    """Writes the mirror's parquet files, and returns what hf_hub_download would."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from PIL import Image

    repo, subfolder, keys = cifar._MIRRORS[name]
    whole = records(name)
    for split, part in (("train", whole[:500]), ("test", whole[500:])):
        cells = []
        for image in part[:, len(keys) :].reshape(-1, 32, 32, 3):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        columns = {key: pa.array(part[:, i].astype(np.int64)) for i, key in enumerate(keys)}
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        path = folder / subfolder / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.table({"img": cells} | columns), path)

    def download(repo_id, filename, repo_type, local_files_only=False):
        assert (repo_id, repo_type) == (repo, "dataset")
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        return str(folder / filename)

    return download


def only_the_mirror_answers(url):
    return "it is down" if "toronto" in url else ""


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_archives_of_both_forms_and_their_folders(tmp_path, name, form):
    files = archive_files(name, form)
    path = write_archive(tmp_path / "data.tar.gz", files)
    np.testing.assert_array_equal(cifar.load_records(name, str(tmp_path), str(path)), records(name))
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    folder = tmp_path / "out" / next(iter(files)).partition("/")[0]
    np.testing.assert_array_equal(
        cifar.load_records(name, str(tmp_path), str(folder)), records(name)
    )


def test_training_from_an_archive_and_its_names(tmp_path, small_config, capsys):
    path = write_archive(tmp_path / "a.tar.gz", archive_files("cifar100", "python"))
    small_config.data.name = "cifar100"
    small_config.data.dir = str(tmp_path)
    small_config.data.archive = str(path)
    splits = data.load(small_config)
    assert [len(part) for part in splits] == [400, 100, 100]
    assert splits.test.class_names[0] == "apple"
    assert splits.test.class_names[99] == "worm"
    assert splits.test.superclass_names[4] == "fruit_and_vegetables"
    assert splits.test.superclasses[0] == 4
    np.testing.assert_array_equal(splits.test.labels, np.arange(100))
    assert "md5" in capsys.readouterr().out
    small_config.num_epochs = 1
    train.train_and_evaluate(small_config, tmp_path / "run")
    # the second start reads the cache, and sees the same images
    assert data.load(small_config).train.fingerprint() == splits.train.fingerprint()


def test_superclasses_are_the_official_ones():
    assert cifar_archive.FINE_TO_COARSE[:10].tolist() == [4, 1, 14, 8, 0, 6, 7, 7, 18, 3]
    assert np.bincount(cifar_archive.FINE_TO_COARSE).tolist() == [5] * 20


def hostile_pickle():
    class Evil:
        def __reduce__(self):
            return os.system, ("echo run > pwned",)

    return pickle.dumps({"data": Evil(), "fine_labels": [], "coarse_labels": []}, protocol=2)


def damage(files, form):
    """Ways in which an archive can be wrong: (its name, its members, what is said)."""
    if form == "binary":
        train, names = "cifar-100-binary/train.bin", "cifar-100-binary/fine_label_names.txt"
        content = bytearray(files[train])
        content[1] = 100
        yield "label", files | {train: bytes(content)}, "train.bin has a label 100; valid are 0"
        content[1] = 5
        yield "pair", files | {train: bytes(content)}, "does not belong to its superclass"
        yield "cut", files | {train: files[train][:-7]}, "no multiple of a record's 3,074"
        yield "few", files | {train: files[train][:3074]}, "holds 1 images, not 500"
        yield "names", files | {names: b"apple\n"}, "does not name the official classes"
        renamed = {name.replace("train.bin", "training.bin"): c for name, c in files.items()}
        yield "member", renamed, "it must hold .*train.bin.*; it holds training.bin"
    else:
        train, meta = "cifar-100-python/train", "cifar-100-python/meta"
        yield "hostile", files | {train: hostile_pickle()}, r"asks for (posix|nt|os)\.system"
        yield "cut", files | {train: files[train][:-7]}, "no pickle of arrays"
        yield "list", files | {train: pickle.dumps([1, 2], 2)}, "no pickled dictionary"
        yield "lacks", files | {train: dict2({"data": b"N"})}, "lacks some of the entries"
        yield "meta", files | {meta: files[train]}, "does not name the official classes"


@pytest.mark.parametrize("form", ["binary", "python"])
def test_damaged_archives_are_refused_in_plain_words(tmp_path, form, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label, files, said in damage(archive_files("cifar100", form), form):
        path = write_archive(tmp_path / f"{label}.tar.gz", files)
        with pytest.raises(ConfigError, match=said) as caught:
            cifar.load_records("cifar100", str(tmp_path), str(path))
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_truncated_and_foreign_files_are_refused(tmp_path):
    whole = write_archive(tmp_path / "whole.tar.gz", archive_files("cifar100", "binary"))
    (tmp_path / "cut.tar.gz").write_bytes(whole.read_bytes()[:-5000])
    (tmp_path / "text.tar.gz").write_text("hello")
    for name, said in (("cut", "damaged"), ("text", "damaged or no tar.gz"), ("no", "not exist")):
        with pytest.raises(ConfigError, match=said):
            cifar.load_records("cifar100", str(tmp_path), str(tmp_path / f"{name}.tar.gz"))
    with pytest.raises(ConfigError, match="is not cifar10: it must hold"):
        cifar.load_records("cifar10", str(tmp_path), str(whole))


def test_without_network_the_three_ways_out_are_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        cifar.load_records("cifar100", str(tmp_path))
    message = str(caught.value)
    assert "the network is cut" in message
    assert "--config.data.archive=path/to/cifar-100-binary.tar.gz" in message
    assert "hf download --repo-type dataset uoft-cs/cifar100" in message
    assert "--config.data.name=synthetic100" in message
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_mirror_gives_what_the_archive_gives(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(cifar, "_host_problem", only_the_mirror_answers)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", write_parquets(name, tmp_path))
    found = cifar.load_records(name, str(tmp_path))
    np.testing.assert_array_equal(found, records(name))
    assert f"trying the mirror uoft-cs/{name}" in capsys.readouterr().out
    # An archive of the same images agrees with the stored fingerprint; another one is noted.
    files = archive_files(name, "binary")
    path = write_archive(tmp_path / "same.tar.gz", files)
    cifar.load_records(name, str(tmp_path), str(path))
    assert "Note" not in capsys.readouterr().out
    first = next(iter(files))
    changed = files | {first: files[first][:-1] + bytes([files[first][-1] ^ 1])}
    path = write_archive(tmp_path / "other.tar.gz", changed)
    cifar.load_records(name, str(tmp_path), str(path))
    assert "are not those that the mirror" in capsys.readouterr().out


def test_decoded_arrays_serve_the_second_start(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_host_problem", only_the_mirror_answers)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", write_parquets("cifar10", tmp_path))
    first = cifar.load_records("cifar10", str(tmp_path))
    monkeypatch.setattr(cifar, "_find", lambda *args: pytest.fail("looked for again"))
    np.testing.assert_array_equal(cifar.load_records("cifar10", str(tmp_path)), first)


def test_mirror_with_wrong_columns_or_labels_is_not_trusted(tmp_path):
    import pyarrow.parquet as pq

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


@pytest.fixture
def tfds_download(monkeypatch):
    """Stands in for the original host: tfds finds the extracted official archive."""

    def prepare(name, tmp_path):
        for path, content in archive_files(name, "binary").items():
            (tmp_path / "extracted" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "extracted" / path).write_bytes(content)
        monkeypatch.setattr(cifar, "_host_problem", lambda url: "")
        monkeypatch.setattr(
            "tensorflow_datasets.download.DownloadManager.download_and_extract",
            lambda self, url: str(tmp_path / "extracted"),
        )

    return prepare


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_tfds_prepares_and_reads_without_tensorflow(tmp_path, tfds_download, name):
    pytest.importorskip("tensorflow_datasets")
    tfds_download(name, tmp_path)
    np.testing.assert_array_equal(cifar.load_records(name, str(tmp_path)), records(name))
    assert "tensorflow" not in sys.modules
    (tmp_path / "jaxcifar" / f"{name}.npy").unlink()
    # What tfds has prepared is used before anything is downloaded.
    found = cifar._from_tfds_prepared(name, tmp_path)
    np.testing.assert_array_equal(found, records(name))


def test_a_host_at_a_crawl_is_not_waited_for(monkeypatch):
    class Crawling(io.BytesIO):
        def read(self, size):
            return b"x"

    clock = iter(range(100))
    monkeypatch.setattr(cifar.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cifar.urllib.request, "urlopen", lambda *args, **kwargs: Crawling())
    assert cifar._host_problem("https://host/file") == "it sends 0 kB/s"


def test_two_processes_preparing_at_once(tmp_path):
    """Both get the records, and only one of them makes them."""
    write_parquets("cifar10", tmp_path)
    code = f"""
import pathlib, time
from jaxcifar import cifar, cifar_archive
cifar_archive.SIZES.update(train=500, test=100)
def find(name, tfds_dir):
    print("making")
    time.sleep(2)
    files = sorted(pathlib.Path({str(tmp_path / "plain_text")!r}).iterdir(), reverse=True)
    return cifar.np.concatenate([cifar.read_parquet(name, file) for file in files])
cifar._find = find
print(len(cifar.load_records("cifar10", {str(tmp_path)!r})))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=60)[0] for process in both]
    assert all(out.endswith("600\n") for out in outs)
    assert sum("making" in out for out in outs) == 1
    kept = {path.suffix for path in (tmp_path / "jaxcifar").iterdir()}
    assert kept == {".lock", ".npy"}


def test_unwritable_directory_is_a_plain_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        cifar.load_records("cifar10", str(pathlib.Path(tmp_path) / "file" / "below"))


def test_config_error_reaches_the_caller(small_config):
    config = config_lib.default()
    config.data.archive = "/no/such/archive.tar.gz"
    with pytest.raises(ConfigError, match="does not exist"):
        data.load(config)
