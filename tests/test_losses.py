import numpy as np

from jaxcifar import losses


def test_cross_entropy_on_hard_and_mixed_targets():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32))
    targets = np.array([[1, 0, 0], [0.5, 0, 0.5]], np.float32)
    expected = [-np.log(0.7), -0.5 * np.log(0.1) - 0.5 * np.log(0.8)]
    np.testing.assert_allclose(losses.cross_entropy(logits, targets), expected, rtol=1e-6)
