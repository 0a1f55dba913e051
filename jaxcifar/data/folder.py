"""Image folders: any images, in one folder per class, as arrays of one size.

Decoding takes much longer than anything else at the start of a run, so the arrays are cached.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import stat

import numpy as np
from PIL import Image, ImageOps

from jaxcifar import cache, memory
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.data.splits import Parts
from jaxcifar.progress_bar import ProgressBar
from jaxcifar.spec import ConfigError

_VERSION = 2  # of what `fit` does: cached arrays of another are made again
_CHUNK = 100  # images that a thread decodes between two updates of the progress bar
_ANNOUNCE_ABOVE = 20e6  # bytes of files; fewer decode in under a second
_NAMES = {"train": ("train",), "test": ("test",), "val": ("val", "valid", "validation")}

# For every file, whatever its extension: Pillow would start Ghostscript for a .jpg that holds
# PostScript.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")


def load(root: str, image_size: int = 32) -> Parts:
    """Returns the images of a folder laid out as `train/<class>/<image>` with `test/`, `val/` (or
    `valid/`, `validation/`) or both likewise; or as `<class>/<image>`.

    Images of any size and mode become RGB squares; see `fit`. Classes are train's subfolders in
    alphabetical order. Hidden files and files without an image extension are ignored. The decoded
    arrays are cached (see `cache`), keyed by the names, sizes and modification times of all files.

    Args:
        root: the folder.
        image_size: height and width of the arrays in pixels.

    Raises:
        ConfigError: a folder is missing, there are fewer than two classes, test or val has classes
            that train lacks or has no images, a class of train is empty, or files cannot be
            decoded.
    """
    base = pathlib.Path(root).expanduser()
    folders = _find_parts(root, base)
    class_names = _class_names(root, folders)
    files = {
        part: [_image_files(folder / name, part) for name in class_names]
        for part, folder in folders.items()
    }
    for part, classes in files.items():
        if not any(classes):
            raise ConfigError(f"config.data.dir={root!r}: {part} has no images in class folders")
    entries = [entry for classes in files.values() for entries in classes for entry in entries]
    key = hashlib.blake2b(b"%d" % _VERSION, digest_size=16)
    for entry in entries:
        status = entry.stat()
        key.update(os.fsencode(f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    # The first digest names the folder, the second its contents: a changed folder replaces its own
    # cache file.
    digest = hashlib.blake2b(os.fsencode(base.resolve()), digest_size=8).hexdigest()
    stem = f"folder-{digest}-{image_size}"
    images = cache.load_or_make(
        cache.directory() / f"{stem}-{key.hexdigest()}.npy",
        lambda: decode_all([entry.path for entry in entries], image_size),
        stale=f"{stem}-*.npy",
    )
    parts, first = {}, 0
    for part, classes in files.items():
        counts = [len(entries) for entries in classes]
        labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        parts[part] = Dataset(images[first : first + len(labels)], labels, class_names)
        first += len(labels)
    return Parts(**parts)


def _find_parts(root: str, base: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the folders of the parts that a folder has; without parts it is all `train`."""
    if not base.is_dir():
        raise ConfigError(f"config.data.dir={root!r} is not a folder")
    found = {
        part: base / name
        for part, names in _NAMES.items()
        for name in names
        if (base / name).is_dir()
    }
    # A folder of classes may have one that is called train.
    if not found or (set(found) == {"train"} and not _subfolders(found["train"])):
        return {"train": base}
    if "train" not in found:
        raise ConfigError(
            f"config.data.dir={root!r} has no folder 'train'; an image folder holds "
            "train/<class>/* and test/<class>/*, val/<class>/* or both; or <class>/* alone"
        )
    return found


def _class_names(root: str, folders: dict[str, pathlib.Path]) -> tuple[str, ...]:
    """Returns the class names, after checking that every part has no others."""
    class_names = _subfolders(folders["train"])
    if len(class_names) < 2:
        where = "train" if len(folders) > 1 else "it"
        raise ConfigError(
            f"config.data.dir={root!r}: {where} must have at least 2 class folders, but has "
            f"{len(class_names)}"
        )
    for part, folder in folders.items():
        if unknown := sorted(set(_subfolders(folder)) - set(class_names)):
            raise ConfigError(
                f"config.data.dir={root!r}: {part} has classes that train lacks: "
                f"{', '.join(unknown[:5])}"
            )
    return tuple(class_names)


def _subfolders(folder: pathlib.Path) -> list[str]:
    return [entry.name for entry in _visible(folder) if entry.is_dir()]


def _visible(folder: str | os.PathLike) -> list[os.DirEntry]:
    return sorted((e for e in os.scandir(folder) if e.name[0] != "."), key=lambda e: e.name)


def _image_files(folder: pathlib.Path, part: str) -> list[os.DirEntry]:
    """Returns the images of a class; only in `train` it must have some."""
    files = _images(folder) if folder.is_dir() else []
    if not files and part == "train":
        inner = _subfolders(folder) if folder.is_dir() else []
        hint = f"; it holds folders: is {str(folder)!r} the folder of classes?" if inner else ""
        raise ConfigError(f"the class folder {str(folder)!r} holds no image files{hint}")
    _check_readable([entry.path for entry in files if not _is_regular(entry)])
    return files


def _images(folder: str | os.PathLike) -> list[os.DirEntry]:
    """Returns the visible entries of a folder that have an image's extension."""
    formats = Image.registered_extensions()
    extensions = {extension for extension, format in formats.items() if format in _FORMATS}
    return [e for e in _visible(folder) if os.path.splitext(e.name)[1].lower() in extensions]


def _is_regular(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a file, and not a folder, a pipe or a dangling or cyclic link."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _check_readable(unreadable: list[str]) -> None:
    """Raises ConfigError if there are unreadable files, naming some."""
    if unreadable:
        count = len(unreadable)
        more = f" and {count - 3} more" if count > 3 else ""
        raise ConfigError(
            f"{count} image file{'s' * (count > 1)} cannot be read: "
            f"{', '.join(sorted(unreadable)[:3])}{more}; repair or remove "
            f"{'them' if count > 1 else 'it'}"
        )


def find_images(root: str) -> list[str]:
    """Returns the paths of all image files in a folder and its subfolders, sorted; hidden files are
    ignored.

    Raises:
        ConfigError: there is no such folder, it holds no image, or some cannot be read.
    """
    if not pathlib.Path(root).is_dir():
        raise ConfigError(f"{root!r} is not a folder")
    entries = []
    for folder, subfolders, _ in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        entries += _images(folder)
    if not entries:
        raise ConfigError(f"the folder {root!r} holds no image files")
    _check_readable([entry.path for entry in entries if not _is_regular(entry)])
    return sorted(entry.path for entry in entries)


def decode_all(paths: list[str], image_size: int) -> np.ndarray:
    """Returns the images in files, uint8 [N, image_size, image_size, 3], as `load` does.

    Raises:
        ConfigError: some cannot be decoded, or there is no memory for all.
    """
    memory.check(len(paths), image_size)
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    unreadable = []

    def decode(rows: range) -> int:
        for row in rows:
            try:
                images[row] = _decode(paths[row], image_size)
            except Exception:  # Pillow's decoders document few of theirs
                unreadable.append(paths[row])
        return rows.stop

    if sum(map(os.path.getsize, paths)) > _ANNOUNCE_ABOVE:
        print(f"Decoding {len(paths):,} images; later runs read them from the cache.")
    # Pillow releases the GIL while it decodes, so threads are enough.
    chunks = [range(low, min(low + _CHUNK, len(paths))) for low in range(0, len(paths), _CHUNK)]
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        ProgressBar("Decoding", len(paths)) as bar,
    ):
        for completed in pool.map(decode, chunks):
            bar.update(completed)
    _check_readable(unreadable)
    return images


def _decode(path: str, image_size: int) -> np.ndarray:
    """Returns the file's image as `fit` does."""
    with Image.open(path, formats=_FORMATS) as image:
        # A much larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size, still 4 times ours or more.
        image.draft(None, (4 * image_size, 4 * image_size))
        return fit(image, image_size)


def fit(image: Image.Image, image_size: int) -> np.ndarray:
    """Returns an image of any size and mode as uint8 [image_size, image_size, 3]: rotated per EXIF,
    transparent parts on black, cropped to the central square, resized with an antialiased bilinear
    filter. One of that size is not resampled.
    """
    if image.mode.startswith("I"):  # 16-bit grayscale, which convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    image = image.convert("RGB")
    size = (image_size, image_size)
    if image.size != size:
        image = ImageOps.fit(image, size, method=Image.Resampling.BILINEAR)
    return np.asarray(image)
