import io
import sys

import numpy as np
import pytest
from PIL import Image

from jaxcifar import examples
from jaxcifar.spec import ConfigError
from jaxcifar.tensorboard_log import TensorBoardLog


def load(directory):
    return (
        pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        .EventAccumulator(str(directory))
        .Reload()
    )


def decode(logged, name):
    (image,) = logged.Images(name)
    return np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))


def points(directory, name):
    return [(event.step, event.value) for event in load(directory).Scalars(name)]


def test_no_gap_or_doubled_point_after_restarts(tmp_path):
    """The second and third start go on from a checkpoint older than what was logged."""
    for start, stop in ((0, 3), (2, 4), (1, 5)):
        log = TensorBoardLog(tmp_path, start)
        for epoch in range(start + 1, stop + 1):
            log.log({"epoch": epoch, "val_acc": 10.0 * start + epoch})
        if stop == 5:
            log.close()  # the others were killed
    expected = [(1, 1.0), (2, 12.0), (3, 13.0), (4, 14.0), (5, 15.0)]
    assert points(tmp_path / "tensorboard", "val_acc") == expected


def test_histograms_and_results(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    mistake = {"images": pixels, "labels": np.int32([0]), "predictions": np.int32([1])}
    mistake |= {"probabilities": np.float32([0.9]), "pair": np.int32([examples.CONFIDENT])}
    examples.save(tmp_path / "examples.npz", mistake)
    log = TensorBoardLog(tmp_path, 0)
    log.log_histograms(2, {"gradients/conv1.kernel": np.arange(10.0)})
    evaluation = {"per_class": [{"class": "cat"}, {"class": "dog"}]}
    evaluation["confusion_matrix"] = [[1, 1], [0, 2]]
    log.log_results(3, {"test_acc": 75.0, "device": "cpu"}, evaluation)
    log.close()
    logged = load(tmp_path / "tensorboard")
    (histogram,) = logged.Histograms("gradients/conv1.kernel")
    assert (histogram.step, histogram.histogram_value.num) == (2, 10)
    assert points(tmp_path / "tensorboard", "test_acc") == [(3, 75.0)]
    assert decode(logged, "confusion_matrix")[..., 0].tolist() == [[127, 127], [0, 255]]
    shown = decode(logged, "mistakes/1_cat_for_dog")
    np.testing.assert_array_equal(shown, pixels[0])


def test_missing_tensorboardx_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="pip install tensorboardX"):
        TensorBoardLog(tmp_path, 0)
