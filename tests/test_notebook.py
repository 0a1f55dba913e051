"""docs/tour.ipynb: as it is stored, and run from top to bottom."""

import json
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tour.ipynb"


def test_is_stored_with_its_outputs():
    assert TOUR.stat().st_size < 400_000
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = json.dumps(outputs)
    assert "text/html" not in text  # a run prints plain lines
    assert "\\u001b" not in text
    assert not re.findall(r"/(?:home|root|tmp|work|Users)/\S*", text)


def test_is_clean():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(TOUR)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_runs(tmp_path, monkeypatch):
    for package in ("ipykernel", "nbclient"):
        pytest.importorskip(package, reason=f"{package} is not installed: the extra notebook")
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    run = runpy.run_path(str(ROOT / "scripts" / "run_notebook.py"))["run"]
    notebook = run(TOUR, tmp_path)  # raises what a cell raises
    text = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    )
    accuracies = [float(value) for value in re.findall(r"^test accuracy ([\d.]+)%", text, re.M)]
    assert len(accuracies) == 2
    assert min(accuracies) > 5  # of a hundred classes
    assert (tmp_path / "runs" / "tour" / "report.html").exists()
