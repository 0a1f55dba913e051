import time

import pytest

from jaxcifar.progress import DivergedError, Progress, SaveSchedule, check_finite


def progress_after(*accuracies, **fields):
    records = [{"epoch": i, "step": 10 * i, "val_acc": a} for i, a in enumerate(accuracies, 1)]
    return Progress({}, ["a", "b"], "digest", records, **fields)


def test_end_epoch_resets_epoch_fields_and_keeps_the_best():
    progress = progress_after(step_in_epoch=7, sums={"count": 3.0}, train_seconds=2.0)
    assert (progress.epoch, progress.best_epoch, progress.num_images) == (0, 0, 3)
    for epoch, (accuracy, best) in enumerate([(50.0, 1), (50.0, 1), (51.0, 3)], 1):
        progress.end_epoch({"epoch": epoch, "val_acc": accuracy}, {"lr": 0.1})
        assert (progress.epoch, progress.best_epoch) == (epoch, best)  # ties keep the first
    assert (progress.step_in_epoch, progress.sums, progress.train_seconds) == (0, {}, 0)


def test_is_finished(small_config):
    assert progress_after(1, 2, 3).is_finished(small_config)
    assert not progress_after(2, 1).is_finished(small_config)
    small_config.num_epochs, small_config.early_stopping.patience = 50, 2
    assert not progress_after(2, 1).is_finished(small_config)
    assert progress_after(2, 1, 1).is_finished(small_config)


def test_json_round_trip_and_other_keys():
    progress = progress_after(1.5, 2.5, sums={"loss": 0.1}, schedule_state={"best": None})
    assert Progress.from_json(progress.to_json()) == progress
    with pytest.raises(TypeError):
        Progress.from_json('{"epoch": 3}')


def test_saves_are_due_by_epochs_steps_and_seconds(small_config):
    cadence = small_config.checkpoint
    cadence.every_epochs = 2
    schedule = SaveSchedule(small_config, step=0)
    assert [schedule.is_due(10 * epoch, epoch) for epoch in (1, 2, 3)] == [False, True, False]
    assert not schedule.is_due(10_000)
    cadence.every_steps = 7
    assert [schedule.is_due(step) for step in (6, 7, 8)] == [False, True, True]
    schedule.saved(8)
    assert not schedule.is_due(14)
    cadence.every_steps, cadence.every_seconds = 0, 0.01
    schedule.saved(14)
    time.sleep(0.02)
    assert schedule.is_due(15)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_values_that_are_not_finite_raise_with_the_circumstances(loss):
    check_finite(1.0, "the training loss is", 1, 10, 0.1)
    with pytest.raises(
        DivergedError, match=r"the training loss is (nan|inf) in epoch 1, step 10.*rate 0\.1;"
    ):
        check_finite(loss, "the training loss is", 1, 10, 0.1)
    with pytest.raises(DivergedError, match=r"rate 0\.1 and gradient norm 7e\+05"):
        check_finite(loss, "the training loss is", 1, 10, 0.1, 7e5)
