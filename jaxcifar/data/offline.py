"""Whether CIFAR-10 and CIFAR-100 are on this machine."""

from jaxcifar import manifest
from jaxcifar.data import cifar


def find(name: str) -> str:
    """Returns which of `cifar.load_records`'s sources has 'cifar10' or 'cifar100' without a
    download; '' if none has.
    """
    from huggingface_hub import try_to_load_from_cache

    tfds_dir = cifar.tfds_directory()
    records = cifar.cached_records(name, tfds_dir)
    if manifest.check(records) == "intact":
        return f"decoded in {records}"
    if cifar.prepared_builder(name, tfds_dir):
        return f"prepared by tfds in {tfds_dir}"
    files = [try_to_load_from_cache(**file) for file in cifar.mirror_files(name)]
    return "in the Hugging Face cache" if all(isinstance(file, str) for file in files) else ""
