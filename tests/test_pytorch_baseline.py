"""A smoke test of scripts/pytorch_baseline.py, if PyTorch is installed."""

import jax
import numpy as np
import pytest
import torch_reference
from flax import nnx

from jaxcifar import models
from jaxcifar.models import functional

pytestmark = pytest.mark.torch


@pytest.fixture
def baseline(monkeypatch, pytestconfig):
    torch_reference.torchvision()  # or the test is skipped
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "scripts")
    import pytorch_baseline

    return pytorch_baseline


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(100) % 10
    return [images[:80], labels[:80], images[80:], labels[80:]]


def test_part_1_trains_and_evaluates(baseline, arrays):
    summary = baseline.train(1, arrays, epochs=2, workers=0)
    assert [record["epoch"] for record in summary["records"]] == [1, 2]
    assert np.isfinite(summary["records"][-1]["train_loss"])
    assert 0 <= summary["test_acc"] <= 100


def num_params_of_ours():
    model = nnx.eval_shape(
        lambda: models.create("resnet18", num_classes=10, rngs=nnx.Rngs(0), head="mlp")
    )
    return sum(leaf.size for leaf in jax.tree.leaves(functional.split(model)[1]))


def test_part_3_prepares_and_mixes_its_batches(baseline, arrays):
    import torch

    recipe = baseline.make_recipe(3, 10, torch.device("cpu"))
    assert recipe.per_step and recipe.mixup
    batch, _, _ = baseline.loaders(recipe, arrays, seed=0, workers=0)
    images, labels = next(iter(batch))
    assert images.shape == (64, 3, 32, 32)
    assert sum(p.numel() for p in recipe.model.parameters()) == num_params_of_ours()
    mixed, loss_fn = baseline.mixup(images, labels, np.random.default_rng(3))
    assert mixed.shape == images.shape
    assert torch.isfinite(loss_fn(torch.zeros(64, 10)))
