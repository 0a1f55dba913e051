import pytest

from jaxcifar.progress import DivergedError, Progress, check_finite


def test_end_epoch_resets_epoch_fields_and_keeps_the_best():
    progress = Progress("", 3, step_in_epoch=7, sums={"count": 3.0}, seconds=2.0)
    assert progress.end_epoch(50.0, {"lr": 0.1})
    assert (progress.epoch, progress.step_in_epoch, progress.sums, progress.seconds) == (
        1,
        0,
        {},
        0,
    )
    assert not progress.end_epoch(50.0, {})  # ties keep the first
    assert (progress.best_epoch, progress.best_val_acc) == (1, 50.0)
    assert progress.end_epoch(51.0, {})
    assert progress.best_epoch == 3


def test_is_finished(small_config):
    def is_finished(epoch, best_epoch):
        return Progress("", 3, epoch=epoch, best_epoch=best_epoch).is_finished(small_config)

    assert is_finished(epoch=3, best_epoch=3)
    assert not is_finished(epoch=2, best_epoch=1)
    small_config.num_epochs, small_config.early_stopping.patience = 50, 2
    assert not is_finished(epoch=2, best_epoch=1)
    assert is_finished(epoch=3, best_epoch=1)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_non_finite_loss_raises_with_step_and_learning_rate(loss):
    check_finite(1.0, "training", 1, 10, 0.1)
    with pytest.raises(
        DivergedError, match=r"training loss is (nan|inf) in epoch 1, step 10.*0\.1"
    ):
        check_finite(loss, "training", 1, 10, 0.1)
