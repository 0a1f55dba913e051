import gzip
import lzma
import os
import pickle
import tarfile

import cifar_files
import numpy as np
import pytest
from cifar_files import archive_files, dict2, records, write_archive

from jaxcifar import data
from jaxcifar.data import cifar, cifar_archive
from jaxcifar.spec import ConfigError

VERSIONS = [(name, kind) for name in ("cifar10", "cifar100") for kind in ("binary", "python")]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """The formats are exact, the number of images is a hundredth of the official one."""
    for split, size in cifar_files.SIZES.items():
        monkeypatch.setitem(cifar_archive.SIZES, split, size)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_both_versions_and_their_folders_load(tmp_path, name, version):
    files = archive_files(name, version)
    path = write_archive(tmp_path / "data.tar.gz", files)
    np.testing.assert_array_equal(cifar.load_records(name, str(tmp_path), str(path)), records(name))
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    folder = tmp_path / "out" / next(iter(files)).partition("/")[0]
    np.testing.assert_array_equal(
        cifar.load_records(name, str(tmp_path), str(folder)), records(name)
    )


def test_images_and_names_of_an_archive(tmp_path, small_config, capsys):
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
    output = capsys.readouterr().out
    assert "Decoding a.tar.gz" in output
    assert "md5" in output
    # The second load reads the same images from the cache.
    assert data.load(small_config).train.fingerprint() == splits.train.fingerprint()
    assert "Decoding" not in capsys.readouterr().out


def test_superclasses_are_official():
    assert cifar_archive.FINE_TO_COARSE[:10].tolist() == [4, 1, 14, 8, 0, 6, 7, 7, 18, 3]
    assert np.bincount(cifar_archive.FINE_TO_COARSE).tolist() == [5] * 20


def malicious_pickle():
    class Evil:
        def __reduce__(self):
            return os.system, ("echo run > pwned",)

    return pickle.dumps({"data": Evil(), "fine_labels": [], "coarse_labels": []}, protocol=2)


def damaged(files, version):
    """Ways in which an archive can be wrong: (a label, its members, the error)."""
    if version == "binary":
        train, names = "cifar-100-binary/train.bin", "cifar-100-binary/fine_label_names.txt"
        content = bytearray(files[train])
        content[1] = 100
        yield "label", files | {train: bytes(content)}, "train.bin has a label 100; valid are 0"
        content[1] = 5
        yield "pair", files | {train: bytes(content)}, "does not belong to its superclass"
        yield "cut", files | {train: files[train][:-7]}, "not a multiple of a record's 3,074"
        yield "few", files | {train: files[train][:3074]}, "must hold 500 images, but holds 1"
        yield "names", files | {names: b"apple\n"}, "does not name the official classes"
        renamed = {name.replace("train.bin", "training.bin"): c for name, c in files.items()}
        yield "member", renamed, "it must hold .*train.bin.*; it holds training.bin"
    else:
        train, meta = "cifar-100-python/train", "cifar-100-python/meta"
        yield "malicious", files | {train: malicious_pickle()}, r"references (posix|nt|os)\.system"
        yield "cut", files | {train: files[train][:-7]}, "not a pickle of arrays"
        yield "list", files | {train: pickle.dumps([1, 2], 2)}, "not a pickled dictionary"
        labels = {"data": np.zeros((5, 3072), np.uint8), "fine_labels": 3, "coarse_labels": None}
        yield "numbers", files | {train: pickle.dumps(labels, 2)}, "labels that are not one integer"
        yield "lacks", files | {train: dict2({"data": b"N"})}, "lacks some of the entries"
        yield "meta", files | {meta: files[train]}, "does not name the official classes"


@pytest.mark.parametrize("version", ["binary", "python"])
def test_damaged_archives_raise_readable_errors(tmp_path, version, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label, files, message in damaged(archive_files("cifar100", version), version):
        path = write_archive(tmp_path / f"{label}.tar.gz", files)
        with pytest.raises(ConfigError, match=message) as error:
            cifar.load_records("cifar100", str(tmp_path), str(path))
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "pwned").exists()


def test_truncated_and_unrelated_files_raise(tmp_path):
    complete = write_archive(tmp_path / "complete.tar.gz", archive_files("cifar100", "binary"))
    (tmp_path / "cut.tar.gz").write_bytes(complete.read_bytes()[:-5000])
    (tmp_path / "text.tar.gz").write_text("hello")
    messages = {"cut": "cannot be read", "text": "cannot be read", "absent": "does not exist"}
    for name, message in messages.items():
        with pytest.raises(ConfigError, match=message):
            cifar.load_records("cifar100", str(tmp_path), str(tmp_path / f"{name}.tar.gz"))
    with pytest.raises(ConfigError, match="is not cifar10: it must hold"):
        cifar.load_records("cifar10", str(tmp_path), str(complete))


def test_archives_that_decompress_to_nonsense_raise(tmp_path):
    content = tarfile.TarInfo("cifar-100-binary/train.bin")
    content.size = 2**40
    (tmp_path / "huge.tar.gz").write_bytes(gzip.compress(content.tobuf() + bytes(1000)))
    complete = write_archive(tmp_path / "complete.tar.gz", archive_files("cifar100", "binary"))
    packed = lzma.compress(gzip.decompress(complete.read_bytes()))
    (tmp_path / "damaged.tar.xz").write_bytes(packed[:100] + bytes(50) + packed[150:])
    for name, message in (("huge.tar.gz", "1,099,511,627,776 bytes"), ("damaged.tar.xz", "read")):
        with pytest.raises(ConfigError, match=message):
            cifar.load_records("cifar100", str(tmp_path), str(tmp_path / name))
