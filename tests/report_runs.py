"""Work directories for the tests of reports, written without training."""

import json

import numpy as np
from PIL import Image

from jaxcifar import config as config_lib
from jaxcifar import examples, scores, scoring
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.run_schedule import RunSchedule

NAMES = ("cat", "<b>dog</b>", 'a "quoted" & $odd$ name', "d'été")
STEPS = 20  # in an epoch


def write_run(path, *, seed=1, lr=0.1, epochs=4, done=None, augment="", val_accs=None, **keys):
    """Writes the work directory of a run that has done all or `done` of its epochs; returns it."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    config = config_lib.default()
    config.seed, config.num_epochs, config.augment = seed, epochs, augment
    config.optimizer.lr, config.schedule.name = lr, "cosine"
    for name, value in keys.items():
        config_lib.override(config, name.replace("__", "."), value)
    (path / "config.json").write_text(config_lib.to_json(config))
    (path / "classes.json").write_text(json.dumps(NAMES))
    schedule = RunSchedule(config, STEPS)
    records = [
        {
            "epoch": epoch,
            "step": STEPS * epoch,
            "train_loss": 2 / epoch,
            "train_acc": 50 + 5.0 * epoch,
            "val_loss": 2.5 / epoch,
            "val_acc": val_accs[epoch - 1] if val_accs else 40 + 5.0 * epoch,
            "lr": schedule.lr(epoch, STEPS * epoch),
            "seconds": 60.0,
            "images_per_second": 1000.0 + epoch,
        }
        for epoch in range(1, (done or epochs) + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if done and done < epochs:
        return path
    labels = np.repeat(np.arange(4), 30).astype(np.int32)
    logits = rng.normal(size=(120, 4)).astype(np.float32)
    logits[np.arange(120), labels] += 1
    images = rng.integers(0, 256, (120, 32, 32, 3), np.uint8)
    test = Dataset(images, labels, NAMES)
    examples.save(path / "examples.npz", examples.collect(logits, test))
    evaluation = scores.summarize(logits, test, logits, labels)
    evaluation["corruptions"] = {
        "accuracy": {"fog": [50.5, 40.4, 30.3, 20.2, 10.1], "snow": [61.6, 51.5, 41.4, 31.3, 21.2]},
        "mean": 35.85,
        "num_corruptions": 2,
        "mean_standard": 35.85,
        "num_standard": 2,
        "relative": 0.7,
    }
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    best = max(records, key=lambda record: record["val_acc"])
    summary = {
        "best_epoch": best["epoch"],
        "best_val_acc": best["val_acc"],
        **scoring.headline(evaluation),
        "num_params": 1234567,
        "images_per_second": 1002.5,
        "wall_seconds": 240.0,
        "versions": {"jax": "9.8.7"},
        "device": "1 × thing",
        "git": {"commit": "abc1234"},
    }
    (path / "summary.json").write_text(json.dumps(summary))
    if augment:
        Image.fromarray(images[0]).save(path / "preview.png")
    return path
