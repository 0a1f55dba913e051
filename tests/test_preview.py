import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

# Runs the command with one example only, since each takes a second to compile.
SHORT = """
import runpy
from jaxcifar import picture
from jaxcifar import corruptions
picture.example_pipelines = lambda: ["hflip"]
corruptions.available = lambda: ["pixelate"]
runpy.run_module("jaxcifar.preview", run_name="__main__")
"""


@pytest.fixture
def run(pytestconfig):
    """Runs Python in the checkout, in its own process."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)},
            cwd=pytestconfig.rootpath,
        )

    return run


def test_draws_originals_samples_and_examples(run, tmp_path, image_folder):
    picture = tmp_path / "new" / "aug.png"
    done = run(
        "-c",
        SHORT,
        "--config=configs/quickstart.py",
        "--config.data.name=folder",  # which loads faster than synthetic100
        f"--config.data.dir={image_folder}",
        "--config.augment=random_flip",
        f"--output={picture}",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"7 rows of 12 images: {picture}\n"
    pixels = np.asarray(Image.open(picture))[:, -12 * 68 :]
    rows = pixels[4 : 4 + 6 * 68].reshape(6, 68, -1, 3)[:, :64]
    assert (rows[0] != rows[1]).any()  # flipped or not
    flipped = rows[5].reshape(64, 12, 68, 3)[:, :, :64][:, :, ::-1]
    np.testing.assert_array_equal(flipped, rows[0].reshape(64, 12, 68, 3)[:, :, :64])


def test_script_errors_and_help(run):
    flags = ("--config=configs/quickstart.py", "--config.augment=rotat(10)", "--output=x")
    done = run("-m", "jaxcifar.preview", *flags)
    assert done.returncode == 2
    assert "there is no transform 'rotat'" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("scripts/preview_augmentations.py", "--help")
    assert done.returncode == 0
    assert "--output" in done.stdout
