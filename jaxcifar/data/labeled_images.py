"""`Dataset`, what every dataset is loaded as: arrays of images and labels, and the class names."""

import dataclasses
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labeled images: `images` uint8 [N, H, W, 3], `labels` int32 [N], one name per class.

    If classes are grouped (CIFAR-100), `superclass_names` names the groups and `superclasses`,
    int32 [number of classes], maps a class to its group.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...] = ()
    superclasses: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray | slice) -> "Dataset":
        """Returns the Dataset of these rows (int [M], or a slice), in their order."""
        return dataclasses.replace(self, images=self.images[rows], labels=self.labels[rows])

    def fingerprint(self) -> str:
        """Returns a hex digest of the images and labels, in their order."""
        digest = hashlib.blake2b(self.labels.tobytes(), digest_size=16)
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()
