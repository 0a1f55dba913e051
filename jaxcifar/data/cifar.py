"""CIFAR-10 and CIFAR-100 without TensorFlow, from the first available source.

The sources, in this order:

1. an archive that the user names
2. the cache of arrays decoded before
3. what tfds has prepared
4. the original host, through tfds's own builders
5. the mirror on the Hugging Face hub

Every source gives the same records (see `cifar_archive`), in the official order.
"""

import hashlib
import io
import json
import os
import pathlib
import time
import urllib.request
from collections.abc import Iterator

import numpy as np

from jaxcifar import cache
from jaxcifar.data import cifar_archive
from jaxcifar.data.cifar_archive import PIXELS, SIZES, check_labels
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.progress_bar import ProgressBar
from jaxcifar.spec import ConfigError, first_line

MIRRORS = {  # Hugging Face dataset, folder of its parquet files, label columns
    "cifar10": ("uoft-cs/cifar10", "plain_text", ["label"]),
    "cifar100": ("uoft-cs/cifar100", "cifar100", ["fine_label", "coarse_label"]),
}
MIN_BYTES_PER_SECOND = 0.5e6  # below this the 170 MB take over five minutes
_CHUNK = 1000  # images decoded between two updates of the progress bar


def load(name: str, data_dir: str = "", archive: str = "") -> tuple[Dataset, Dataset]:
    """Returns the (train, test) images of 'cifar10' or 'cifar100', in the official order.

    Arguments and errors are those of `load_records`.
    """
    records = load_records(name, data_dir, archive)
    groups = {}
    if name == "cifar100":
        groups["superclass_names"] = tuple(cifar_archive.CIFAR100_SUPERCLASSES)
        groups["superclasses"] = cifar_archive.FINE_TO_COARSE
    dataset = Dataset(
        records[:, cifar_archive.num_labels(name) :].reshape(-1, 32, 32, 3),
        records[:, 0].astype(np.int32),
        tuple(cifar_archive.class_names(name)),
        **groups,
    )
    num_train = SIZES["train"]
    return dataset.take(slice(num_train)), dataset.take(slice(num_train, None))


def load_records(name: str, data_dir: str = "", archive: str = "") -> np.ndarray:
    """Returns the records of 'cifar10' or 'cifar100'.

    Args:
        name: 'cifar10' or 'cifar100'.
        data_dir: tfds's data directory ('': $TFDS_DATA_DIR, else ~/tensorflow_datasets).
        archive: an official tar.gz (binary or python version) or its extracted folder; '' to find
            or download the data.

    Returns:
        uint8 [60000, K + 3072], the training images first; see `cifar_archive`.

    Raises:
        ConfigError: the archive does not exist, is damaged or another dataset's; the data directory
            is not writable; or the data cannot be downloaded.
    """
    tfds_dir = tfds_directory(data_dir)
    cached = cached_records(name, tfds_dir)
    if archive:
        path = pathlib.Path(archive).expanduser()
        if not path.exists():
            raise ConfigError(f"config.data.archive={archive!r} does not exist")
        records = cifar_archive.load(name, path)
        check_records(name, tfds_dir, f"the archive {path.name}", records)
        return records
    if cached.exists():
        return cache.load_or_make(cached, lambda: _obtain(name, tfds_dir))
    import filelock

    _make_folder(cached.parent)
    lock = filelock.FileLock(cached.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"Another process is preparing {name} in {tfds_dir}: waiting for it.")
        lock.acquire()
    try:
        return cache.load_or_make(cached, lambda: _obtain(name, tfds_dir))
    finally:
        lock.release()


def tfds_directory(data_dir: str = "") -> pathlib.Path:
    """Returns tfds's data directory; see `load_records`."""
    path = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(path).expanduser()


def cached_records(name: str, tfds_dir: pathlib.Path) -> pathlib.Path:
    """Returns the file of the records decoded before."""
    return tfds_dir / "jaxcifar" / f"{name}.npy"


def record_set_digest(records: np.ndarray) -> str:
    """Returns a digest of the set of records, which does not depend on their order."""
    rows = np.sort([hashlib.blake2b(row, digest_size=16).digest() for row in records])
    return hashlib.blake2b(b"".join(rows.tolist()), digest_size=16).hexdigest()


def check_records(name: str, tfds_dir: pathlib.Path, source: str, records: np.ndarray) -> None:
    """Checks the number of records. Stores their digest; or, if one is stored, compares it and
    prints a note if it differs.

    Raises:
        ConfigError: the number of records is wrong.
    """
    if len(records) != sum(SIZES.values()):
        raise ConfigError(
            f"{source} must have {sum(SIZES.values()):,} images, but has {len(records):,} "
            f"(data directory: {str(tfds_dir)!r})"
        )
    path = tfds_dir / "jaxcifar" / f"{name}.json"
    digest = record_set_digest(records)
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):  # none yet, or damaged
        _make_folder(path.parent)
        path.write_text(json.dumps({"source": source, "fingerprint": digest}) + "\n")
        return
    if stored["fingerprint"] != digest:
        print(
            f"Note: the images and labels of {source} differ from those loaded earlier from "
            f"{stored['source']} ({path})."
        )


def _obtain(name: str, tfds_dir: pathlib.Path) -> np.ndarray:
    """Returns the records from the first source that has them, and reports each attempt."""
    if builder := prepared_builder(name, tfds_dir):
        records = _read_prepared(name, builder)
        check_records(name, tfds_dir, "tfds's prepared data", records)
        return records
    archive = f"{name.replace('cifar', 'cifar-')}-binary.tar.gz"
    host_problem = download_problem(f"https://www.cs.toronto.edu/~kriz/{archive}")
    if not host_problem:
        print(f"Downloading and preparing {name} with tfds in {tfds_dir}.")
        try:
            records = _from_tfds_download(name, tfds_dir)
            check_records(name, tfds_dir, "tfds", records)
            return records
        except OSError as error:
            host_problem = _reason(error)
    repo = MIRRORS[name][0]
    print(f"The original host of {name} is unavailable ({host_problem}); trying the mirror {repo}.")
    try:
        records = _from_mirror(name)
        check_records(name, tfds_dir, f"the mirror {repo}", records)
        return records
    except (OSError, ValueError) as error:
        mirror_problem = _reason(error)
    raise ConfigError(
        f"{name} cannot be downloaded: the original host failed ({host_problem}), and so did the "
        f"mirror ({mirror_problem}). Options:\n"
        f"  use an archive from elsewhere: config.data.archive=path/to/{archive}\n"
        f"  run `hf download --repo-type dataset {repo}` on a machine with internet, and copy its "
        "~/.cache/huggingface here\n"
        "  use synthetic images, without download: config.data.name=synthetic100",
        command_hint="as flags: --config.data.archive=..., --config.data.name=synthetic100",
    )


# --- tfds -----------------------------------------------------------------------------------------


def _builder(name: str, tfds_dir: pathlib.Path):
    """Returns tfds's builder, adapted to need no TensorFlow: it writes ArrayRecord files, and
    reads the archive's files itself into PIL images, which tfds's Image feature can encode.
    """
    from PIL import Image
    from tensorflow_datasets.image_classification import cifar as stock

    base = {"cifar10": stock.Cifar10, "cifar100": stock.Cifar100}[name]

    class Builder(base, skip_registration=True):
        # What tfds would derive from the name and location of the class
        name = base.name
        url_infos = base.url_infos
        pkg_dir_path = base._get_pkg_dir_path()

        def _generate_examples(self, split_prefix: str, filepaths: Iterator[str]):
            keys = self._cifar_info.label_keys[::-1]
            index = 0
            for path in filepaths:
                for record in cifar_archive.read_binary(name, pathlib.Path(path).read_bytes()):
                    image = Image.fromarray(record[len(keys) :].reshape(32, 32, 3))
                    labels = dict(zip(keys, record.tolist(), strict=False))
                    yield index, {"id": f"{split_prefix}{index:05d}", "image": image} | labels
                    index += 1

    try:
        return Builder(data_dir=tfds_dir, file_format="array_record")
    except ValueError:  # prepared there in another format, which cannot be read without TensorFlow
        print(f"{name} in {tfds_dir} ignored: its format needs TensorFlow.")
        return Builder(data_dir=tfds_dir / "jaxcifar", file_format="array_record")


def prepared_builder(name: str, tfds_dir: pathlib.Path):
    """Returns the builder of what tfds has prepared, None if it has not."""
    folders = (tfds_dir / name, tfds_dir / "jaxcifar" / name)
    if not any(path for folder in folders for path in folder.glob("*/*info.json")):
        return None
    builder = _builder(name, tfds_dir)
    return builder if builder.is_prepared() else None


def _from_tfds_download(name: str, tfds_dir: pathlib.Path) -> np.ndarray:
    builder = _builder(name, tfds_dir)
    builder.download_and_prepare(download_dir=tfds_dir / "downloads")
    return _read_prepared(name, builder)


def _read_prepared(name: str, builder) -> np.ndarray:
    keys = ["label"] if name == "cifar10" else ["label", "coarse_label"]
    parts = []
    sources = [builder.as_data_source(split=split) for split in ("train", "test")]
    with _decoding(sum(map(len, sources))) as bar:
        for source in sources:
            examples = []
            for low in range(0, len(source), _CHUNK):
                chunk = range(low, min(low + _CHUNK, len(source)))
                examples += source.__getitems__(chunk)
                bar.update(sum(map(len, parts)) + len(examples))
            examples.sort(key=lambda example: example["id"])  # tfds shuffles
            labels = np.array([[example[key] for key in keys] for example in examples], np.uint8)
            images = np.stack([example["image"] for example in examples]).reshape(-1, PIXELS)
            parts.append(np.concatenate([labels, images], axis=1))
    return np.concatenate(parts)


def download_problem(url: str) -> str:
    """Returns why a URL cannot be downloaded now, or '' if it can, and fast enough.

    The libraries that download would retry for minutes, and accept any speed.
    """
    started, received = time.monotonic(), 0
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            while (seconds := time.monotonic() - started) < 4 and received < 8e6:
                chunk = response.read(1 << 16)
                if not chunk:
                    return ""
                received += len(chunk)
    except OSError as error:
        return _reason(error)
    rate = received / max(seconds, 1e-3)
    return "" if rate > MIN_BYTES_PER_SECOND else f"only {rate / 1e3:.0f} kB/s"


# --- the mirror -----------------------------------------------------------------------------------


def _from_mirror(name: str) -> np.ndarray:
    """Returns the records in the mirror's files, which huggingface_hub keeps in its own cache."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    paths = []
    for file in mirror_files(name):
        try:
            path = huggingface_hub.hf_hub_download(**file, local_files_only=True)
        except LocalEntryNotFoundError:
            if problem := download_problem(huggingface_hub.hf_hub_url(**file)):
                raise OSError(problem) from None
            path = huggingface_hub.hf_hub_download(**file)
        paths.append(pathlib.Path(path))
    return np.concatenate([read_parquet(name, path) for path in paths])


def mirror_files(name: str) -> list[dict[str, str]]:
    """Returns the mirror's files, as huggingface_hub's functions take them."""
    repo, folder, _ = MIRRORS[name]
    names = (f"{folder}/{split}-00000-of-00001.parquet" for split in ("train", "test"))
    return [{"repo_id": repo, "repo_type": "dataset", "filename": name} for name in names]


def read_parquet(name: str, path: pathlib.Path) -> np.ndarray:
    """Returns the records in a parquet file of the mirror, uint8 [N, K + 3072]: its columns are
    `img` (a struct whose `bytes` is a PNG) and the labels.

    Raises:
        ValueError: a column is missing, or a label or an image is not valid.
    """
    import pyarrow.parquet
    from PIL import Image

    keys = MIRRORS[name][2]
    table = pyarrow.parquet.read_table(path)
    missing = {"img", *keys} - set(table.column_names)
    if missing:
        raise ValueError(f"{path.name} lacks the columns {', '.join(sorted(missing))}")
    labels = np.stack([table[key].to_numpy() for key in keys], axis=1)
    images = []
    with _decoding(len(labels)) as bar:
        for cell in table["img"].to_pylist():
            image = Image.open(io.BytesIO(cell["bytes"])).convert("RGB")
            images.append(np.asarray(image).reshape(-1))
            if len(images) % _CHUNK == 0:
                bar.update(len(images))
    records = np.concatenate([labels.astype(np.uint8), np.stack(images)], axis=1)
    if (labels != records[:, : len(keys)]).any():
        raise ValueError(f"{path.name} has labels that are not integers from 0 to 255")
    check_labels(name, records)
    return records


# --- shared ---------------------------------------------------------------------------------------


def _decoding(num_images: int) -> ProgressBar:
    """Announces the decoding and returns its progress bar."""
    print(f"Decoding {num_images:,} images; later runs read them from the cache.")
    return ProgressBar("Decoding", num_images)


def _make_folder(path: pathlib.Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the data directory {str(path.parent)!r} is not writable ({_reason(error)}); "
            "choose another with config.data.dir"
        ) from error


def _reason(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 200 characters."""
    return first_line(getattr(error, "reason", None) or error)[:200]
