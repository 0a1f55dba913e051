"""The split of a dataset into training, validation and test images."""

from typing import NamedTuple

import numpy as np

from jaxcifar.data.labeled_images import Dataset
from jaxcifar.spec import ConfigError

FEW = 5  # images of a class in validation or test: with fewer its accuracy says little
FEW_STEPS = 10  # steps in an epoch: with fewer the usual numbers of epochs train little


class Parts(NamedTuple):
    """A dataset as it is read; None: there is no such part."""

    train: Dataset
    test: Dataset | None = None
    val: Dataset | None = None


class Splits(NamedTuple):
    """The parts of a dataset. They are disjoint, except that `test` is `val` where a dataset has
    only that beside its training images.
    """

    train: Dataset
    val: Dataset
    test: Dataset

    @property
    def tests_on_val(self) -> bool:
        """Whether the test score is that of the validation images."""
        return self.test is self.val


def split(parts: Parts, *, val_fraction: float, stratified: bool, seed: int) -> Splits:
    """Returns the dataset with every part: a missing validation set is split off the training
    images, and where there are these alone, a test set of the same size, too. Where only the test
    set is missing, it is the validation set.

    The split is random; if it is not `stratified`, its sizes are as in PyTorch's `random_split`:
    `int((1 - val_fraction) * N)` train, the rest validate.

    Args:
        parts: the dataset as it is read.
        val_fraction: the fraction of the images that are split which validate, in (0, 1).
        stratified: split every class by itself; all but single images of a class are in both.
        seed: of the split.

    Raises:
        ConfigError: it would leave no images in a part.
    """
    from jaxcifar.rng import Stream  # lazy: config imports this module without JAX

    train, test, val = parts
    if val is not None:
        return Splits(train, val, val if test is None else test)
    fraction = val_fraction
    if test is None:
        train, test = _divide(train, fraction, stratified, seed, Stream.TEST_SPLIT)
        fraction /= 1 - fraction
        if fraction >= 1:
            raise ConfigError(
                f"config.data.val_fraction={val_fraction} leaves nothing to train on: as many "
                "images are the test set; it must be below 0.5"
            )
    train, val = _divide(train, fraction, stratified, seed, Stream.SPLIT)
    return Splits(train, val, test)


def notes(splits: Splits, parts: Parts, batch_size: int) -> list[str]:
    """Returns what the user should know of a split: how it was made, and what is too small.

    Args:
        splits: the images that the run uses.
        parts: what they were split from.
        batch_size: images in a step.
    """
    lines = []
    if parts.test is None and parts.val is None:
        counts = ", ".join(f"{len(part):,} {name}" for name, part in splits._asdict().items())
        lines.append(
            f"the data has no val or test images, so they are drawn from it: {counts} "
            "(config.data.val_fraction, config.data.split, config.seed)"
        )
    elif parts.test is None:
        lines.append(
            "the data has no test images: the test score is that of the validation images, which "
            "also choose the best epoch"
        )
    checked = {"validation": splits.val} | ({} if splits.tests_on_val else {"test": splits.test})
    for name, part in checked.items():
        counts = np.bincount(part.labels, minlength=len(part.class_names))
        few = sorted((count, part.class_names[label]) for label, count in enumerate(counts))
        few = [f"{class_name} {count}" for count, class_name in few if count < FEW]
        if few:
            lines.append(
                f"warning: {len(few)} of {len(counts)} classes have fewer than {FEW} {name} images "
                f"({', '.join(few[:5])}{', ...' if len(few) > 5 else ''}): their accuracy says "
                "little"
            )
    steps = -(-len(splits.train) // batch_size)
    if steps < FEW_STEPS:
        lines.append(
            f"warning: {len(splits.train):,} training images make only {steps} "
            f"step{'s' * (steps > 1)} an epoch with config.batch_size={batch_size}: lower it, or "
            "raise config.num_epochs"
        )
    return lines


def permutation(seed: int, which: int, count: int) -> np.ndarray:
    """Returns a random order of `count` rows, int [count]; `which` is the `rng.Stream`."""
    import jax

    from jaxcifar.rng import stream

    return np.asarray(jax.random.permutation(stream(seed, which), count))


def _divide(
    dataset: Dataset, fraction: float, stratified: bool, seed: int, which: int
) -> tuple[Dataset, Dataset]:
    """Returns a random part of a dataset without a fraction of it, and that fraction."""
    rows = permutation(seed, which, len(dataset))
    is_first = np.arange(len(rows)) < int((1 - fraction) * len(rows))
    if stratified:
        labels = dataset.labels[rows]
        for label in np.unique(labels):
            places = np.flatnonzero(labels == label)
            count = round((1 - fraction) * len(places))
            is_first[places] = np.arange(len(places)) < max(1, min(count, len(places) - 1))
    if is_first.all() or not is_first.any():
        raise ConfigError(
            f"config.data.val_fraction={fraction:.3g} leaves nothing to "
            f"{'validate' if is_first.any() else 'train'} on (of {len(rows)} images)"
        )
    return dataset.take(rows[is_first]), dataset.take(rows[~is_first])
