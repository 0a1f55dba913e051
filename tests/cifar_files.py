"""CIFAR files, a hundredth of the official size: both versions of the archives, as Python 2 and its
NumPy wrote them, and the mirror's parquet files.
"""

import io
import struct
import tarfile

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jaxcifar.data import cifar, cifar_archive

SIZES = {"train": 500, "test": 100}


def records(name):
    """The records that every source below must give, uint8 [600, K + 3072]: learnable, each image
    different.
    """
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


def string2(string):
    """A string as Python 2 pickled it."""
    data = string if isinstance(string, bytes) else string.encode()
    short = len(data) < 256
    return (b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data


def list2(items):
    return b"](" + b"".join(items) + b"e"


def array2(array):
    """A uint8 array [N, M] as Python 2 and its NumPy pickled it."""
    rows, columns = (b"J" + struct.pack("<i", n) for n in array.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
        + rows
        + columns
        + b"\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89"
        + string2(array.tobytes())
        + b"tb"
    )


def dict2(entries):
    body = b"".join(string2(key) + value for key, value in entries.items())
    return b"\x80\x02}(" + body + b"u."


def integers2(column):
    return list2([b"K" + bytes([value]) for value in column.tolist()])


def python_file(name, part, title):
    keys = ["labels"] if name == "cifar10" else ["fine_labels", "coarse_labels"]
    entries = {"batch_label": string2(title)}
    entries |= {key: integers2(part[:, i]) for i, key in enumerate(keys)}
    entries["data"] = array2(planes(name, part))
    entries["filenames"] = list2([string2(f"image_{i:05d}.png") for i in range(len(part))])
    return dict2(entries)


def binary_file(name, part):
    labels = part[:, : cifar_archive.num_labels(name)][:, ::-1]
    return np.concatenate([labels, planes(name, part)], axis=1).tobytes()


def archive_files(name, version):
    """The members of an archive in the official layout: content by path."""
    all_records = records(name)
    names = cifar_archive.class_names(name)
    coarse = list(cifar_archive.CIFAR100_SUPERCLASSES)
    if name == "cifar10":
        parts = {f"data_batch_{i + 1}": all_records[100 * i : 100 * i + 100] for i in range(5)}
        parts["test_batch"] = all_records[500:]
        folder = "cifar-10-batches-"
        if version == "binary":
            files = {f"{folder}bin/{k}.bin": binary_file(name, v) for k, v in parts.items()}
            return files | {f"{folder}bin/batches.meta.txt": ("\n".join(names) + "\n\n").encode()}
        files = {f"{folder}py/{k}": python_file(name, v, k) for k, v in parts.items()}
        meta = {"label_names": list2(map(string2, names))}
        return files | {f"{folder}py/batches.meta": dict2(meta)}
    parts = {"train": all_records[:500], "test": all_records[500:]}
    if version == "binary":
        files = {f"cifar-100-binary/{k}.bin": binary_file(name, v) for k, v in parts.items()}
        for key, values in (("fine", names), ("coarse", coarse)):
            files[f"cifar-100-binary/{key}_label_names.txt"] = ("\n".join(values) + "\n").encode()
        return files
    files = {f"cifar-100-python/{k}": python_file(name, v, k) for k, v in parts.items()}
    meta = {"fine_label_names": names, "coarse_label_names": coarse}
    return files | {
        "cifar-100-python/meta": dict2({k: list2(map(string2, v)) for k, v in meta.items()})
    }


def write_archive(path, files):
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_parquets(name, folder):
    """Writes the mirror's parquet files, and returns a stand-in for hf_hub_download."""
    repo, subfolder, keys = cifar.MIRRORS[name]
    all_records = records(name)
    for split, part in (("train", all_records[:500]), ("test", all_records[500:])):
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
