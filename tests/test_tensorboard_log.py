import sys

import pytest

from jaxcifar.spec import ConfigError
from jaxcifar.tensorboard_log import TensorBoardLog


def points(directory, name):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(directory))
    return [(event.step, event.value) for event in accumulator.Reload().Scalars(name)]


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


def test_missing_tensorboardx_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="pip install tensorboardX"):
        TensorBoardLog(tmp_path, 0)
