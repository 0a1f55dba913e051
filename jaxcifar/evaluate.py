"""Scoring a run's model: on its test set or on any folder of photos.

python -m jaxcifar.evaluate --workdir=runs/part3 [--checkpoint=best|last|STEP] [--tta]
                            [--ood_dir=generate|DIR [--submission=FILE.csv]]
                            [--predict=FOLDER --output=FILE.csv] [--config=FILE.py]

It writes every score of the best checkpoint to <workdir>/evaluation.json, and those of
--checkpoint=X to evaluation-X.json; with --tta, -tta follows. --ood_dir adds the scores on the
corruption benchmark, in a directory or generated from the test images; the files of a challenge,
which have no labels, are classified for --submission instead, which needs no data set. If
interrupted, it continues after the corruptions already scored. --predict writes the class of every
photo in a folder instead, and needs no data set. --config names the run's config file, if it
registers the model. It may be called while the run is training, and on other devices.
"""

import csv
import functools
import io
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxcifar import cli, corruption_benchmark, manifest, scoring
from jaxcifar.corruption_benchmark import Benchmark
from jaxcifar.progress_bar import ProgressBar
from jaxcifar.spec import ConfigError

if TYPE_CHECKING:
    from flax import nnx

_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last, or the step of a checkpoint")
_TTA = flags.DEFINE_bool("tta", False, "average each image's logits with its mirror image's")
_OOD_DIR = flags.DEFINE_string(
    "ood_dir", None, "a directory with the corruption benchmark, or generate"
)
_SUBMISSION = flags.DEFINE_string("submission", None, "the CSV file for a challenge's files")
_PREDICT = flags.DEFINE_string("predict", None, "a folder of photos to classify")
_OUTPUT = flags.DEFINE_string("output", None, "the CSV file for --predict")


def predict(
    model_or_workdir: "nnx.Module | str | os.PathLike",
    images: np.ndarray | Sequence[np.ndarray],
    *,
    tta: bool = False,
) -> np.ndarray:
    """Returns the probabilities of the classes for images, float32 [N, classes], in the order of
    the model's `class_names`.

    Images of other sizes are cropped to the central square and resized as in training, and
    normalized with the run's mean and standard deviation.

    Args:
        model_or_workdir: what `checkpoint.load_model` returned, or a run's work directory.
        images: uint8 [N, H, W, 3], or a sequence of uint8 [H, W, 3] of any sizes.
        tta: average each image's logits with its mirror image's.

    Raises:
        ConfigError: the images are not uint8 RGB, or the run cannot be loaded.
    """
    from PIL import Image

    from jaxcifar import checkpoint, scores
    from jaxcifar.data import folder

    model = model_or_workdir
    if isinstance(model, str | os.PathLike):
        model, _ = checkpoint.load_model(model)
    if not hasattr(model, "normalization"):
        raise ConfigError("predict needs a model from jaxcifar.checkpoint.load_model")
    for image in images:
        if np.ndim(image) != 3 or np.shape(image)[-1] != 3 or np.asarray(image).dtype != np.uint8:
            raise ConfigError(
                f"predict needs uint8 images [H, W, 3], not {np.asarray(image).dtype} "
                f"{list(np.shape(image))}"
            )
    if not len(images):
        return np.zeros((0, len(model.class_names)), np.float32)
    resized = np.stack(
        [folder.fit(Image.fromarray(np.asarray(image)), model.image_size) for image in images]
    )
    return scores.softmax(_make_logits(model, tta=tta)(resized)).astype(np.float32)


def main() -> int:
    """Scores a run's model, or classifies a folder; returns the exit code."""
    if not cli.WORKDIR.value:
        raise ConfigError("--workdir is missing: name the run to evaluate")
    if bool(_PREDICT.value) != bool(_OUTPUT.value):
        raise ConfigError("--predict=FOLDER and --output=FILE.csv belong together: set both")
    if _SUBMISSION.value and not _OOD_DIR.value:
        raise ConfigError("--submission=FILE.csv needs --ood_dir=DIR, the challenge's files")

    from jaxcifar import checkpoint  # lazy: --help and errors should not wait for JAX

    which = int(_CHECKPOINT.value) if _CHECKPOINT.value.isdecimal() else _CHECKPOINT.value
    model, config = checkpoint.load_model(cli.WORKDIR.value, which, cli.CONFIG.value)
    if _PREDICT.value:
        count = _write_predictions(model, _PREDICT.value, pathlib.Path(_OUTPUT.value))
        print(f"{count:,} predictions: {_OUTPUT.value}")
        return 0
    benchmark = None
    if _OOD_DIR.value and _OOD_DIR.value != "generate":
        benchmark = corruption_benchmark.find(
            _OOD_DIR.value, len(model.class_names), config.data.image_size
        )
        if benchmark.labels is None and not _SUBMISSION.value:
            raise ConfigError(
                f"--ood_dir={_OOD_DIR.value!r} holds a challenge's files, without labels: set "
                "--submission=FILE.csv"
            )
    if _SUBMISSION.value:
        if not benchmark or benchmark.labels is not None:
            raise ConfigError(
                "--submission is for a challenge's files; those of "
                f"--ood_dir={_OOD_DIR.value!r} have labels"
            )
        count = _write_submission(model, config, benchmark, pathlib.Path(_SUBMISSION.value))
        print(f"{count:,} predictions: {_SUBMISSION.value}")
        return 0
    evaluation = {"checkpoint": _CHECKPOINT.value, "tta": _TTA.value}
    suffix = ("" if which == "best" else f"-{which}") + ("-tta" if _TTA.value else "")
    evaluation |= _score(model, config, benchmark, suffix)
    directory = pathlib.Path(cli.WORKDIR.value)
    path = directory / f"evaluation{suffix}.json"
    if not _OOD_DIR.value:
        _keep_corruptions(path, evaluation)
    manifest.write_json(path, evaluation)
    corruption_benchmark.forget_predictions(directory)
    print(f"{scoring.table(evaluation)}\neverything: {path}")
    return 0


def _score(
    model: "nnx.Module", config: ConfigDict, benchmark: Benchmark | None, suffix: str
) -> dict[str, Any]:
    """Returns the scores of a run's model on its test set and on the benchmark."""
    from jaxcifar import data

    splits = data.load(config)
    if splits.test.class_names != model.class_names:
        raise ConfigError(
            f"the {len(splits.test.class_names)} classes of the data set {config.data.name!r} are "
            f"not the {len(model.class_names)} of the run: the data has changed since"
        )
    if _OOD_DIR.value == "generate":
        benchmark = corruption_benchmark.generated(splits.test, config.seed)
    compute, version = _make_logits(model, config=config, tta=_TTA.value), _version(model)
    directory = pathlib.Path(cli.WORKDIR.value)
    with ProgressBar("scoring", len(splits.test)) as bar:

        def on_batch(what: str) -> Callable[[int, int], None]:
            return lambda done, total: bar.update(done, what, total)

        return scoring.evaluate(compute, version, splits, benchmark, directory, on_batch, suffix)


def _keep_corruptions(path: pathlib.Path, evaluation: dict[str, Any]) -> None:
    """Keeps the corruption scores in a file of earlier scores if those are of the same model."""
    try:
        old = json.loads(path.read_bytes())
        if old["confusion_matrix"] == evaluation["confusion_matrix"]:
            evaluation["corruptions"] = old["corruptions"]
    except (OSError, ValueError, KeyError, TypeError):  # there are none
        pass


def _version(model: "nnx.Module") -> Any:
    """Returns what a loaded model's logits depend on."""
    from jaxcifar.models import functional

    return _TTA.value, model.normalization, functional.split_eval(model)[1:]


def _write_submission(
    model: "nnx.Module", config: ConfigDict, benchmark: Benchmark, output: pathlib.Path
) -> int:
    """Writes a challenge's submission and returns its number of rows."""
    _check_writable("submission", output)
    compute = _make_logits(model, config=config, tta=_TTA.value)
    directory = pathlib.Path(cli.WORKDIR.value)
    with ProgressBar("scoring", benchmark.num_images * len(benchmark.load)) as bar:
        predicted = corruption_benchmark.predictions(
            benchmark, compute, _version(model), directory, lambda done, _: bar.update(done)
        )
    count = corruption_benchmark.write_submission(output, predicted)
    corruption_benchmark.forget_predictions(directory)
    return count


def _check_writable(flag: str, path: pathlib.Path) -> None:
    """Checks that a file can be written, before hours of scoring; leaves it as it is."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"--{flag}={str(path)!r} is not a file")
    try:
        probe = path.with_name(f"{path.name}.{os.getpid()}.test")  # writing replaces the file
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--{flag}={str(path)!r} cannot be written: {error.strerror}") from error


def _make_logits(
    model: "nnx.Module", *, config: ConfigDict | None = None, tta: bool
) -> Callable[..., np.ndarray]:
    """Returns fn(images uint8 [N, 32, 32, 3], on_batch=None) -> logits float32 [N, classes] of a
    loaded model, compiled once. Without a config, the defaults of eval.* and parallel.* are used.
    """
    from jaxcifar import config as config_lib
    from jaxcifar import logits, parallel
    from jaxcifar.models import functional

    if config is None:
        config = config_lib.default()
        config.data.mean, config.data.std = model.normalization
    graphdefs, params, stats = functional.split_eval(model)
    compute = logits.Logits(graphdefs, config, parallel.setup(config))
    return functools.partial(compute, params, stats, tta=tta)


def _write_predictions(model: "nnx.Module", folder_path: str, output: pathlib.Path) -> int:
    """Writes the predictions for a folder's photos as CSV and returns how many there are."""
    from jaxcifar import scores
    from jaxcifar.data import folder

    _check_writable("output", output)
    paths = folder.find_images(folder_path)
    compute = _make_logits(model, tta=_TTA.value)
    probabilities = scores.softmax(compute(folder.decode_all(paths, model.image_size)))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class", "probability", "top5"])
    for path, row in zip(paths, probabilities, strict=True):
        top = [(model.class_names[i], row[i]) for i in np.argsort(-row, kind="stable")[:5]]
        top5 = ";".join(f"{name}:{probability:.6f}" for name, probability in top)
        file = os.path.relpath(path, folder_path)
        writer.writerow([file, top[0][0], f"{top[0][1]:.6f}", top5])
    manifest.write_atomically(output, text.getvalue())
    return len(paths)


def launch() -> None:
    """Runs the command and exits."""
    own_flags = (_CHECKPOINT, _TTA, _OOD_DIR, _SUBMISSION, _PREDICT, _OUTPUT)
    cli.launch(main, __doc__, (cli.WORKDIR, *own_flags, cli.CONFIG))


if __name__ == "__main__":
    launch()
