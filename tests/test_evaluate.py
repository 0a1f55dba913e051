import csv
import functools
import json

import numpy as np
import pytest
from PIL import Image

from jaxcifar import checkpoint, corruptions, data, evaluate, train
from jaxcifar.spec import ConfigError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "run"


@pytest.fixture
def workdir(directory, small_config):
    """The work directory of a finished run of one epoch, trained once."""
    small_config.num_epochs = 1
    train.train_and_evaluate(small_config, directory)
    return directory


@pytest.fixture
def command(call_command):
    """Runs the command in this process: fn(*flags) -> exit code, stdout, stderr."""
    return functools.partial(call_command, evaluate.launch)


@pytest.fixture
def photos(tmp_path):
    """A folder of photos of several sizes and modes, in subfolders, and other files."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    sizes = [(32, 32, 3), (48, 40, 3), (20, 20), (64, 32, 4)]
    names = ["a.png", "b.png", "sub/c.png", "sub/d,e.png"]
    for name, size in zip(names, sizes, strict=True):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(root / name)
    (root / "notes.txt").write_text("x")
    (root / ".hidden.png").write_text("x")
    return root


def test_evaluation_agrees_with_the_summary(workdir, command):
    summary = json.loads((workdir / "summary.json").read_text())
    first = json.loads((workdir / "evaluation.json").read_text())
    assert first["accuracy"] == summary["test_acc"]
    assert first["loss"] == summary["test_loss"]
    assert np.sum(first["confusion_matrix"]) == first["num_images"] == 120
    assert len(first["per_class"]) == 100
    (workdir / "evaluation.json").unlink()
    code, out, err = command(f"--workdir={workdir}")
    assert code == 0, err
    assert f"test accuracy      {summary['test_acc']:.2f}%" in out
    again = json.loads((workdir / "evaluation.json").read_text())
    assert again["confusion_matrix"] == first["confusion_matrix"]
    assert again["loss"] == pytest.approx(first["loss"], rel=1e-6)


def test_other_checkpoints_and_tta(workdir, command):
    for which in ("last", "10"):
        code, _, err = command(f"--workdir={workdir}", f"--checkpoint={which}", "--tta")
        assert code == 0, err
        evaluation = json.loads((workdir / f"evaluation-{which}-tta.json").read_text())
        assert (evaluation["checkpoint"], evaluation["tta"]) == (which, True)


def test_predict_normalizes_and_resizes(workdir, small_config):
    model, _ = checkpoint.load_model(workdir)
    images = data.load(small_config).test.images[:7]
    probabilities = evaluate.predict(model, images)
    assert probabilities.dtype == np.float32
    pixels = (images / 255 - small_config.data.mean) / np.array(small_config.data.std)
    logits = np.asarray(model(pixels.astype(np.float32)), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    large = [np.asarray(Image.fromarray(image).resize((64, 64), 0)) for image in images]
    larger = evaluate.predict(workdir, [*large, images[0]], tta=True)
    assert larger.shape == (8, 100)
    assert evaluate.predict(model, images[:0]).shape == (0, 100)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 32, 32), np.uint8),
        [np.zeros(3, np.uint8)],
    ],
)
def test_predict_refuses_other_images(workdir, images):
    with pytest.raises(ConfigError, match="predict needs uint8 images"):
        evaluate.predict(workdir, images)


def test_models_refuse_integers(workdir):
    model, _ = checkpoint.load_model(workdir)
    with pytest.raises(TypeError, match=r"evaluate\.predict"):
        model(np.zeros((1, 32, 32, 3), np.uint8))


def test_predictions_of_a_folder(workdir, command, photos, tmp_path):
    output = tmp_path / "predictions.csv"
    code, _, err = command(f"--workdir={workdir}", f"--predict={photos}", f"--output={output}")
    assert code == 0, err
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.png", "b.png", "sub/c.png", "sub/d,e.png"]
    assert list(rows[0]) == ["file", "class", "probability", "top5"]
    top = [pair.rpartition(":") for pair in rows[0]["top5"].split(";")]
    assert len(top) == 5
    assert (top[0][0], top[0][2]) == (rows[0]["class"], rows[0]["probability"])
    expected = evaluate.predict(workdir, [np.asarray(Image.open(photos / "a.png"))])[0]
    assert float(rows[0]["probability"]) == pytest.approx(expected.max(), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir is missing"),
        (["--workdir=nosuch"], "not the work directory of a run"),
        (["--workdir=RUN", "--checkpoint=worst"], "no checkpoint 'worst'; available: best, last"),
        (["--workdir=RUN", "--checkpoint=7"], "no checkpoint 7"),
        (["--workdir=RUN", "--predict=PHOTOS"], "belong together"),
        (["--workdir=RUN", "--output=x.csv"], "belong together"),
        (["--workdir=RUN", "--predict=nosuch", "--output=TMP/x.csv"], "'nosuch' is not a folder"),
        (["--workdir=RUN", "--predict=EMPTY", "--output=TMP/x.csv"], "holds no image files"),
        (["--workdir=RUN", "--predict=PHOTOS", "--output=nosuch/x.csv"], "cannot be written"),
        (["--workdir=RUN", "--tta=perhaps"], "tta"),
        (["--workdir=RUN", "--config=nosuch.py"], "no config file"),
        (["--workdir=RUN", "stray"], "'stray' is not a flag"),
    ],
)
def test_invalid_commands_exit_with_2(workdir, photos, tmp_path, command, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"RUN": workdir, "PHOTOS": photos, "EMPTY": tmp_path / "empty", "TMP": tmp_path}
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    code, out, err = command(*arguments)
    assert code == 2, out
    assert not (tmp_path / "x.csv").exists()
    assert message in err
    assert len(err.splitlines()) == 1


def test_corruption_benchmark_and_submission(workdir, command, tmp_path):
    from test_corruption_benchmark import DISTORTIONS, write_released

    released = write_released(tmp_path / "released")
    code, out, err = command(f"--workdir={workdir}", f"--ood_dir={released}")
    assert code == 0, err
    assert "mean of 19" in out
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    assert evaluation["corruptions"]["num_standard"] == 15
    assert not list(workdir.glob("corruption-predictions-*"))
    challenge = write_released(tmp_path / "challenge", DISTORTIONS, labels=False)
    output = tmp_path / "submission.csv"
    code, out, err = command(
        f"--workdir={workdir}", f"--ood_dir={challenge}", f"--submission={output}"
    )
    assert code == 0, err
    assert "380 predictions" in out
    assert output.read_text().count("\n") == 381
    for arguments, message in (
        ([f"--ood_dir={challenge}"], "set --submission=FILE.csv"),
        ([f"--ood_dir={released}", f"--submission={output}"], "have labels"),
        ([f"--submission={output}"], "needs --ood_dir"),
        (["--ood_dir=generate", f"--submission={output}"], "have labels"),
        (["--ood_dir=nosuch"], "is not a folder"),
        ([f"--ood_dir={challenge}", "--submission=nosuch/x.csv"], "cannot be written"),
    ):
        code, _, err = command(f"--workdir={workdir}", *arguments)
        assert code == 2
        assert message in err


def test_generated_corruptions_are_scored_with_the_run_and_by_evaluate(
    small_config, command, tmp_path, monkeypatch
):
    monkeypatch.setattr(corruptions, "available", lambda: ["contrast", "saturate"])
    small_config.num_epochs = 1
    small_config.eval.ood_dir = "generate"
    summary = train.train_and_evaluate(small_config, tmp_path / "run")
    first = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert list(first["corruptions"]["accuracy"]) == ["contrast", "saturate"]
    assert summary["ood_acc"] == first["corruptions"]["mean"]
    assert summary["ood_acc_standard"] == first["corruptions"]["mean_standard"]
    assert summary["ood_corruptions"] == 2
    code, out, err = command(f"--workdir={tmp_path / 'run'}", "--ood_dir=generate")
    assert code == 0, err
    assert "mean of 2" in out
    assert "without frost (to generate it: pip install --no-deps imagecorruptions)" in out
    again = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert again["corruptions"] == first["corruptions"]
    assert not list((tmp_path / "run").glob("corruption-predictions-*"))
    assert command(f"--workdir={tmp_path / 'run'}")[0] == 0  # keeps them
    again = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert again["corruptions"] == first["corruptions"]


def test_a_wrong_benchmark_is_refused_before_training(small_config, tmp_path):
    small_config.eval.ood_dir = str(tmp_path / "nosuch")
    with pytest.raises(ConfigError, match="nosuch' is not a folder"):
        train.train_and_evaluate(small_config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_challenge_is_classified_at_the_end_of_a_run(small_config, tmp_path):
    from test_corruption_benchmark import DISTORTIONS, write_released

    challenge = write_released(tmp_path / "challenge", DISTORTIONS, labels=False)
    small_config.num_epochs = 1
    small_config.eval.ood_dir = str(challenge)
    summary = train.train_and_evaluate(small_config, tmp_path / "run")
    assert "ood_acc" not in summary
    assert (tmp_path / "run" / "submission_ood.csv").read_text().count("\n") == 381


def test_help_is_fast_and_complete(command):
    code, out, _ = command("--help")
    assert code == 0
    names = ("workdir", "checkpoint", "tta", "ood_dir", "submission", "predict", "output", "config")
    for name in names:
        assert f"--{name}\n" in out
