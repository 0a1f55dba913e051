import numpy as np
import pytest

from jaxcifar import examples, scoring
from jaxcifar.data import Splits
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.spec import ConfigError


@pytest.fixture
def test_set():
    labels = np.repeat(np.arange(3), 40).astype(np.int32)
    images = np.arange(120, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    return Dataset(images, labels, ("a", "b", "c"))


def test_worst_pairs_are_the_largest_counts_off_the_diagonal():
    confusion = np.array([[90, 4, 0], [9, 80, 4], [0, 1, 7]])
    assert examples.worst_pairs(confusion) == [(1, 0), (0, 1), (1, 2), (2, 1)]
    assert examples.worst_pairs(confusion, 2) == [(1, 0), (0, 1)]
    assert examples.worst_pairs(np.diag([3, 4])) == []


def test_examples_are_the_most_confident_mistakes(test_set, tmp_path):
    logits = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    found = examples.collect(logits, test_set)
    exponentials = np.exp(logits.astype(np.float64))
    probabilities = (exponentials / exponentials.sum(1, keepdims=True)).max(1)
    wrong = [i for i in range(120) if logits[i].argmax() != test_set.labels[i]]
    expected = sorted(wrong, key=lambda i: -probabilities[i])[:24]
    is_confident = found["pair"] == examples.CONFIDENT
    np.testing.assert_array_equal(found["images"][is_confident], test_set.images[expected])
    np.testing.assert_allclose(found["probabilities"][is_confident], probabilities[expected])
    for rank in range(6):
        rows = np.flatnonzero(found["pair"] == rank)
        assert len(rows) == 6
        pairs = {(found["labels"][row], found["predictions"][row]) for row in rows}
        assert len(pairs) == 1
        assert found["labels"][rows[0]] != found["predictions"][rows[0]]
    examples.save(tmp_path / "examples.npz", found)
    loaded = examples.load(tmp_path / "examples.npz", 3)
    assert all(np.array_equal(loaded[name], found[name]) for name in found)
    assert [path.name for path in tmp_path.iterdir()] == ["examples.npz"]


@pytest.mark.parametrize("suffix", ["", "-last"])
def test_scoring_keeps_them(test_set, tmp_path, suffix):
    logits = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    splits = Splits(test_set, test_set, test_set)
    inputs = (lambda images, on_batch: logits), 0, splits, None, tmp_path, lambda what: None
    scoring.evaluate(*inputs, suffix)
    loaded = examples.load(tmp_path / f"examples{suffix}.npz", 3)
    assert np.array_equal(loaded["images"], examples.collect(logits, test_set)["images"])


def test_a_model_without_mistakes_has_no_examples(test_set, tmp_path):
    found = examples.collect(100 * np.eye(3, dtype=np.float32)[test_set.labels], test_set)
    examples.save(tmp_path / "examples.npz", found)
    assert examples.load(tmp_path / "examples.npz", 3)["images"].shape == (0, 4, 4, 3)


def test_other_files_are_refused(test_set, tmp_path):
    found = examples.collect(-np.eye(3, dtype=np.float32)[test_set.labels], test_set)
    path = tmp_path / "examples.npz"
    for changed in (
        {"labels": found["labels"][1:]},
        {"images": found["images"] / 255},
        {"predictions": found["predictions"] + 2},
    ):
        examples.save(path, found | changed)
        with pytest.raises(ConfigError, match=r"examples\.npz"):
            examples.load(path, 3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match="cannot be read"):
        examples.load(path, 3)
