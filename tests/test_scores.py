import numpy as np
import pytest

from jaxcifar import scores


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    logits = rng.normal(size=(500, 10)).astype(np.float32)
    logits[np.arange(500), labels] += 2
    return logits, labels


def test_small_case_by_hand():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.5, 0.1]], np.float32))
    labels = np.array([0, 1, 0])
    assert scores.accuracy(logits, labels) == pytest.approx(100 / 3)
    assert scores.top_k_accuracy(logits, labels, 2) == 100
    assert scores.loss(logits, labels) == pytest.approx(-np.log([0.7, 0.3, 0.4]).mean(), rel=1e-6)
    confusion = scores.confusion_matrix(logits, labels)
    assert confusion.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(scores.class_accuracies(confusion), [50, 0, np.nan])
    assert scores.group(confusion, np.array([0, 0, 1])).tolist() == [[2, 1], [0, 0]]


def test_ties_count_for_the_first_classes():
    logits = np.zeros((10, 10), np.float32)
    labels = np.arange(10)
    assert scores.accuracy(logits, labels) == 10
    assert scores.top_k_accuracy(logits, labels) == 50


def test_large_logits_do_not_overflow():
    logits = np.array([[1e30, -1e30], [300, 200]], np.float32)
    assert scores.loss(logits, np.array([0, 0])) == 0
    assert np.isfinite(scores.softmax(logits)).all()


def test_calibration_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([0, 1, 0, 1])
    error, bins = scores.calibration(np.log(probabilities), labels, num_bins=5)
    # (0.4, 0.6]: one right at 60 %; (0.6, 0.8]: one right at 80 %; (0.8, 1]: one of two at 90 %
    assert error == pytest.approx((40 + 20 + 2 * 40) / 4)
    assert [row["count"] for row in bins] == [0, 0, 1, 1, 2]
    assert bins[0]["accuracy"] is None
    assert bins[4]["confidence"] == pytest.approx(90)


def test_temperature_undoes_a_scaling(predictions):
    logits, labels = predictions
    base = scores.fit_temperature(logits, labels)
    assert scores.fit_temperature(logits * 4, labels) == pytest.approx(4 * base, rel=1e-4)
    assert scores.loss(logits / base, labels) <= scores.loss(logits, labels)


def test_agrees_with_each_other(predictions):
    logits, labels = predictions
    confusion = scores.confusion_matrix(logits, labels)
    assert confusion.sum() == 500
    assert 100 * confusion.trace() / 500 == pytest.approx(scores.accuracy(logits, labels))
    assert scores.top_k_accuracy(logits, labels, 1) == scores.accuracy(logits, labels)
    assert sum(row["count"] for row in scores.calibration(logits, labels)[1]) == 500


@pytest.mark.torch
def test_loss_matches_torch(predictions):
    torch = pytest.importorskip("torch")
    logits, labels = map(torch.from_numpy, predictions)
    expected = torch.nn.functional.cross_entropy(logits.double(), labels).item()
    assert scores.loss(*predictions) == pytest.approx(expected, rel=1e-12)
