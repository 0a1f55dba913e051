import ast
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcifar import augment
from jaxcifar.augment.parse import TRANSFORMS, read

SCRIPT = "scripts/preview_augmentations.py"

# Runs the script with two rows of examples only, since each takes a second to compile.
SHORT = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("preview", "{SCRIPT}")
preview = importlib.util.module_from_spec(spec)
spec.loader.exec_module(preview)
preview.EXAMPLES = ("hflip", "cutout(12)")
preview.launch()
"""


@pytest.fixture
def run(pytestconfig):
    """Runs Python in the checkout, in a process of its own."""

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


def examples(pytestconfig):
    """Returns the script's EXAMPLES without running it here, where its flags would stay."""
    tree = ast.parse((pytestconfig.rootpath / SCRIPT).read_text())
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES"
    ]
    return ast.literal_eval(value)


def test_every_transform_has_an_example_that_makes_an_image(pytestconfig):
    lines = examples(pytestconfig)
    assert {read(line)[0][0] for line in lines} == set(TRANSFORMS)
    image = jax.ShapeDtypeStruct((32, 32, 3), np.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    for line in lines:
        found = jax.eval_shape(augment.parse(line), key, image)
        assert (found.shape, found.dtype) == (image.shape, image.dtype), line


def test_draws_originals_samples_and_examples(run, tmp_path):
    picture = tmp_path / "new" / "aug.png"
    done = run(
        "-c",
        SHORT,
        "--config=configs/quickstart.py",
        "--config.data.synthetic_size=100",
        "--config.augment=random_flip",
        f"--output={picture}",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"7 rows of 12 images: {picture}\n"
    pixels = np.asarray(Image.open(picture))[:, -12 * 68 :]
    rows = pixels[4 : 4 + 7 * 68].reshape(7, 68, -1, 3)[:, :64]
    assert (rows[0] != rows[1]).any()  # flipped or not
    flipped = rows[5].reshape(64, 12, 68, 3)[:, :, :64][:, :, ::-1]
    np.testing.assert_array_equal(flipped, rows[0].reshape(64, 12, 68, 3)[:, :, :64])


def test_mistakes_and_help(run):
    flags = (SCRIPT, "--config=configs/quickstart.py")
    done = run(*flags, "--config.augment=rotat(10)", "--output=x.png")
    assert done.returncode == 2
    assert "config.augment: there is no transform 'rotat'" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(*flags, "--output=x.jpg").returncode == 2
    done = run(SCRIPT, "--help")
    assert done.returncode == 0
    assert "--output" in done.stdout
