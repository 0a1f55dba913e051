import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxcifar import corruption_benchmark
from jaxcifar.corruptions import EXTRA, STANDARD, apply, files, generate, photographs
from jaxcifar.data import folder
from jaxcifar.data.labeled_images import Dataset
from jaxcifar.spec import ConfigError

DATASET = Dataset(
    np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8),
    np.array([2, 0, 1], np.int32),
    ("a", "b", "c"),
)


@pytest.fixture
def few(monkeypatch):
    """Has only two corruptions, which compile fast."""
    monkeypatch.setattr(files, "available", lambda: ["contrast", "pixelate"])


def test_layout_is_the_released_one(tmp_path, few):
    assert files.write(DATASET, 5, tmp_path / "new" / "out") == ["contrast", "pixelate"]
    root = tmp_path / "new" / "out"
    assert sorted(path.name for path in root.iterdir()) == [
        *("contrast.npy", "corruptions.json", "labels.npy", "pixelate.npy")
    ]
    assert np.load(root / "labels.npy").tolist() == [2, 0, 1] * 5
    for name in ("contrast", "pixelate"):
        array = np.load(root / f"{name}.npy")
        expected = [images for _, _, images in generate(DATASET.images, 5, [name])]
        np.testing.assert_array_equal(array, np.concatenate(expected))


def test_continues_after_an_interruption(tmp_path, few, monkeypatch):
    calls = []

    def interrupted(key, images, name, severity):
        calls.append((name, severity))
        if len(calls) == 8:
            raise KeyboardInterrupt
        return images

    with monkeypatch.context() as patch:
        patch.setattr(apply, "corrupt", interrupted)
        with pytest.raises(KeyboardInterrupt):
            files.write(DATASET, 5, tmp_path)
        assert not list(tmp_path.glob("*pixelate*"))  # no part of it
        files.write(DATASET, 5, tmp_path)
    assert calls[8:] == [("pixelate", severity) for severity in range(1, 6)]


def test_other_images_seeds_and_files_are_refused(tmp_path, few):
    files.write(DATASET, 5, tmp_path)
    for dataset, seed in ((DATASET, 6), (DATASET.take(slice(2)), 5)):
        with pytest.raises(ConfigError, match="of other images or of another seed"):
            files.write(dataset, seed, tmp_path)
    (tmp_path / "corruptions.json").write_text("{")
    with pytest.raises(ConfigError, match=r"corruptions.json' cannot be read"):
        files.write(DATASET, 5, tmp_path)
    (tmp_path / "corruptions.json").unlink()
    with pytest.raises(ConfigError, match="were not written by this command"):
        files.write(DATASET, 5, tmp_path)


def test_command_writes_what_evaluate_reads(tmp_path, image_folder):
    """All but two files as if they had been written before: most corruptions compile for long."""
    output = tmp_path / "out"

    def run(*flags):
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "jaxcifar.corruptions",
                "--config=configs/quickstart.py",
                *flags,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ,
        )

    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --output is missing: name a directory to write\n"
    test = folder.load(str(image_folder)).test
    output.mkdir()
    identity = {"images": test.fingerprint(), "seed": 3}
    (output / "corruptions.json").write_text(json.dumps(identity))
    for name in {*STANDARD, *EXTRA} - {"contrast", "pixelate", "frost"}:
        np.save(output / f"{name}.npy", np.zeros((5 * len(test), 32, 32, 3), np.uint8))
    flags = ("--config.data.name=folder", f"--config.data.dir={image_folder}", "--config.seed=3")
    done = run(*flags, f"--output={output}")
    assert done.returncode == 0, done.stderr
    if not photographs.are_installed():
        assert "left out: frost (pip install --no-deps imagecorruptions)" in done.stdout
    assert done.stdout.endswith(f" corruptions of 8 images: {output}\n")
    benchmark = corruption_benchmark.find(str(output), num_classes=2, image_size=32)
    assert benchmark.labels.tolist() == test.labels.tolist() * 5
    assert benchmark.load["contrast"]()[5 * 8 - 1].std() < test.images[7].std()
