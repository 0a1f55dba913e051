import numpy as np
import pytest

from jaxcifar import corruption_benchmark, corruptions
from jaxcifar.corruption_benchmark import DISTORTIONS
from jaxcifar.corruptions import EXTRA, STANDARD
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.spec import ConfigError

N = 4  # images at each severity


def write_released(directory, names=(*STANDARD, *EXTRA), labels=True):
    directory.mkdir()
    for index, name in enumerate(names):
        np.save(directory / f"{name}.npy", np.full((5 * N, 32, 32, 3), index, np.uint8))
    if labels:
        np.save(directory / "labels.npy", np.tile(np.arange(N), 5))
    return directory


def write_npz(path):
    with open(path, "wb") as file:
        np.savez(file, images=np.zeros(3))


@pytest.fixture
def released(tmp_path):
    return write_released(tmp_path / "released")


@pytest.fixture
def challenge(tmp_path):
    return write_released(tmp_path / "challenge", DISTORTIONS, labels=False)


def find(directory):
    return corruption_benchmark.find(str(directory), num_classes=N, image_size=32)


def test_finds_the_released_and_the_challenge_files(released, challenge):
    benchmark = find(released)
    assert list(benchmark.load) == [*STANDARD, *EXTRA]
    assert benchmark.labels.tolist() == [0, 1, 2, 3] * 5
    assert benchmark.num_images == 20
    assert find(challenge).labels is None
    assert list(find(challenge).load) == list(DISTORTIONS)
    (released / "frost.npy").unlink()  # which cannot always be generated
    assert len(find(released).load) == 18


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "fog.npy").unlink(), r"lacks fog\.npy$"),
        (lambda d: (d / "labels.npy").unlink(), r"lacks labels\.npy"),
        (lambda d: (d / "fog.npy").rename(d / "mist.npy"), r"lacks fog.npy and has also mist\.npy"),
        (lambda d: (d / "fog.npy").write_bytes(b"x"), r"fog\.npy' cannot be read"),
        (lambda d: (d / "fog.npy").write_bytes(b""), r"fog\.npy' cannot be read"),
        (lambda d: write_npz(d / "fog.npy"), r"fog\.npy' cannot be read"),
        (
            lambda d: np.save(d / "fog.npy", np.zeros((20, 32, 32, 3))),
            "has float64 .*must be uint8",
        ),
        (lambda d: np.save(d / "fog.npy", np.zeros((20, 64, 64, 3), np.uint8)), "5·N, 32, 32, 3"),
        (lambda d: np.save(d / "fog.npy", np.zeros((21, 32, 32, 3), np.uint8)), "5·N, 32, 32, 3"),
        (lambda d: np.save(d / "fog.npy", np.zeros((0, 32, 32, 3), np.uint8)), "5·N, 32, 32, 3"),
        (lambda d: np.save(d / "fog.npy", np.zeros((25, 32, 32, 3), np.uint8)), "but .* has .20, "),
        (lambda d: np.save(d / "labels.npy", np.zeros(19, int)), r"integers \[20\]"),
        (lambda d: np.save(d / "labels.npy", np.zeros(20)), r"integers \[20\]"),
        (lambda d: np.save(d / "labels.npy", np.full(20, N)), "from 0 to 3"),
        (
            lambda d: np.save(d / "labels.npy", np.array([{}] * 20), allow_pickle=True),
            r"labels\.npy' cannot be read",
        ),
    ],
)
def test_wrong_files_are_named_before_anything_is_computed(released, damage, message):
    damage(released)
    with pytest.raises(ConfigError, match=message):
        find(released)


def test_predictions_continue_after_the_files_done(released, tmp_path):
    """Of an interrupted pass of the same model."""
    calls, shown = [], []

    def compute(images, on_batch):
        calls.append(int(images[0, 0, 0, 0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        on_batch(len(images), len(images))
        return np.eye(N)[[0] * len(images)]

    def predict(weight):
        version = {"weight": np.float32([weight])}, True
        return corruption_benchmark.predictions(
            find(released), compute, version, tmp_path, lambda *counts: shown.append(counts)
        )

    with pytest.raises(KeyboardInterrupt):
        predict(1)
    assert len(list(tmp_path.glob("corruption-predictions-*"))) == 1
    predict(2)
    assert calls == [0, 1, 2, *range(19)]
    predicted = predict(1)
    assert calls[22:] == list(range(2, 19))
    assert shown[-1] == (19 * 20, 19 * 20)
    assert list(predicted) == [*STANDARD, *EXTRA]
    assert all(classes.dtype == np.int16 and len(classes) == 20 for classes in predicted.values())
    assert list(predict(1)) == list(predicted) and len(calls) == 39  # nothing is computed again
    corruption_benchmark.forget_predictions(tmp_path)
    assert not list(tmp_path.glob("corruption-predictions-*"))


def test_a_generated_benchmark_has_the_severities_in_order(monkeypatch):
    monkeypatch.setattr(corruptions, "available", lambda: ["contrast"])
    images = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), np.uint8)
    test = Dataset(images, np.arange(N, dtype=np.int32), tuple("abcd"))
    benchmark = corruption_benchmark.generated(test, seed=3)
    assert list(benchmark.load) == ["contrast"]
    assert benchmark.labels.tolist() == [0, 1, 2, 3] * 5
    loaded = benchmark.load["contrast"]().reshape(5, N, 32, 32, 3)
    assert benchmark.num_images == 5 * N
    spreads = [part.std() for part in (images, *loaded)]
    assert spreads == sorted(spreads, reverse=True)
    identities = {corruption_benchmark.generated(test, seed).identity for seed in (3, 3, 4)}
    assert len(identities) == 2


def test_scores_by_corruption_and_severity():
    labels = np.tile(np.arange(N), 5)
    wrong = labels.copy()
    wrong[4:6] += 1  # half of severity 2
    result = corruption_benchmark.scores({"fog": wrong, "saturate": labels}, labels, 80.0)
    assert result["accuracy"]["fog"] == [100, 50, 100, 100, 100]
    assert (result["mean"], result["num_corruptions"]) == (95, 2)
    assert (result["mean_standard"], result["num_standard"]) == (90, 1)
    assert result["relative"] == 95 / 80
    text = corruption_benchmark.table(result)
    assert "fog                100.0  50.0 100.0" in text
    assert "mean of 2" in text and "of 1 standard" in text


def test_submission_has_the_challenges_format(tmp_path):
    predicted = {name: np.arange(20) % N for name in DISTORTIONS}
    path = tmp_path / "submission.csv"
    assert corruption_benchmark.write_submission(path, predicted) == 19 * 20
    lines = path.read_text().splitlines()
    assert lines[:3] == ["id,label", "distortion00_1_0,0", "distortion00_1_1,1"]
    assert lines[-1] == "distortion18_5_3,3"
    assert len(lines) == 19 * 20 + 1
    assert list(tmp_path.iterdir()) == [path]
