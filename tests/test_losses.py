import numpy as np
import pytest

from jaxcifar import losses

pytestmark = pytest.mark.numerics


def test_cross_entropy_on_hard_and_mixed_targets():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32))
    targets = np.array([[1, 0, 0], [0.5, 0, 0.5]], np.float32)
    expected = [-np.log(0.7), -0.5 * np.log(0.1) - 0.5 * np.log(0.8)]
    np.testing.assert_allclose(losses.cross_entropy(logits, targets), expected, rtol=1e-6)


def test_label_smoothing_matches_its_formula():
    logits = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))
    targets = np.array([[1, 0, 0]], np.float32)
    expected = -(0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(losses.cross_entropy(logits, targets, 0.3), expected, rtol=1e-6)


def test_jensen_shannon_is_the_mean_divergence_from_the_mean():
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(4, 5)).astype(np.float32) for _ in range(3)]
    probabilities = [np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in logits]
    mean = np.mean(probabilities, 0)
    expected = np.mean([(p * np.log(p / mean)).sum(-1) for p in probabilities], 0)
    np.testing.assert_allclose(losses.jensen_shannon(logits), expected, rtol=1e-4)
    np.testing.assert_allclose(losses.jensen_shannon([logits[0]] * 3), 0, atol=1e-6)


@pytest.mark.torch
def test_jensen_shannon_matches_augmix_in_pytorch():
    """The expression of AugMix's training loop, without its weight, over the batch."""
    torch = pytest.importorskip("torch")
    kl_div = torch.nn.functional.kl_div
    logits = np.random.default_rng(0).normal(scale=6, size=(3, 8, 5)).astype(np.float32)
    probabilities = torch.softmax(torch.tensor(logits), -1)
    mixture = probabilities.mean(0).clamp(1e-7, 1).log()
    expected = sum(kl_div(mixture, p, reduction="batchmean") for p in probabilities) / 3
    np.testing.assert_allclose(losses.jensen_shannon(logits).mean(), float(expected), rtol=1e-5)
