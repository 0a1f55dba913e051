import jax
import numpy as np
import pytest
from flax import nnx

from jaxcifar import logits as logits_lib
from jaxcifar import models, parallel
from jaxcifar.models import functional


@pytest.fixture
def network(small_config):
    """fn(images, **options) -> logits, and what they are to be without mesh and batches."""
    model = models.create("simple_cnn", num_classes=10, width=4, rngs=nnx.Rngs(0))
    graphdefs, params, stats = functional.split(model)
    evaluate = jax.jit(lambda pixels: functional.apply_eval(graphdefs, params, stats, pixels))

    def compute(images, **options):
        mesh = parallel.setup(small_config)
        return logits_lib.Logits(graphdefs, small_config, mesh)(params, stats, images, **options)

    def expect(images):
        pixels = (images / 255 - small_config.data.mean) / np.array(small_config.data.std)
        return evaluate(pixels.astype(np.float32))

    return compute, expect


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (25, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch_size", [7, 25, 1000])
def test_every_image_has_its_logits_for_any_batch_size(network, images, small_config, batch_size):
    small_config.eval.batch_size = batch_size
    compute, expect = network
    scored = []
    logits = compute(images, on_batch=lambda *counts: scored.append(counts))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expect(images), rtol=1e-5, atol=1e-6)
    assert scored == [(done, 25) for done in (*range(batch_size, 25, batch_size), 25)]
    on_device = compute(jax.device_put(images))
    np.testing.assert_array_equal(on_device, logits)


def test_tta_is_the_mean_over_mirror_images(network, images):
    compute, expect = network
    expected = (expect(images) + expect(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(compute(images, tta=True), expected, rtol=1e-5, atol=1e-6)
