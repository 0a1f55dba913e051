import numpy as np
import pytest

from jaxcifar import metrics

pytestmark = pytest.mark.numerics


def test_sums_mask_rows_and_score_mixed_targets_fractionally():
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 0.0]], np.float32)
    targets = np.array([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]], np.float32)
    each = np.array([0.5, 1.0, 100.0], np.float32)
    sums = metrics.batch_sums(each, logits, targets, np.array([True, True, False]))
    loss, accuracy = metrics.loss_and_accuracy(metrics.add({}, sums))
    assert loss == pytest.approx(0.75)
    assert accuracy == pytest.approx(100 * 1.7 / 2)


def test_totals_add_up():
    sums = {"loss": np.float32(1), "correct": np.float32(2), "count": np.float32(4)}
    assert metrics.add(metrics.add({}, sums), sums) == {"loss": 2, "correct": 4, "count": 8}
