import jax
import numpy as np
import pytest
from flax import nnx

from jaxcifar import models, parallel, validation
from jaxcifar.models import functional

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("batch_size", [7, 25, 1000])
def test_every_image_counts_once_for_any_batch_size(small_config, batch_size):
    small_config.eval.batch_size = batch_size
    mesh = parallel.setup(small_config)
    model = models.create("simple_cnn", num_classes=10, width=4, rngs=nnx.Rngs(0))
    graphdefs, params, stats = functional.split(model)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (25, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 25, dtype=np.int32)

    score = validation.Evaluation(graphdefs, small_config, mesh)
    arrays = jax.device_put((images, labels), parallel.replicated(mesh))
    scored = []
    loss, accuracy = score(params, stats, *arrays, on_batch=lambda *counts: scored.append(counts))

    pixels = (images / 255 - small_config.data.mean) / np.array(small_config.data.std)
    logits = functional.apply_eval(graphdefs, params, stats, pixels.astype(np.float32))
    log_probs = np.asarray(jax.nn.log_softmax(logits))[np.arange(25), labels]
    assert loss == pytest.approx(-log_probs.mean(), rel=1e-5)
    assert accuracy == pytest.approx(100 * (logits.argmax(1) == labels).mean())
    assert scored == [(done, 25) for done in (*range(batch_size, 25, batch_size), 25)]
