import statistics
import subprocess
import sys

import pytest
from report_runs import write_run
from test_report import Page

ACCURACIES = ([50.0, 61.25], [52.0, 63.5], [51.0, 60.0])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The comparison of three seeds of one config with a run of another that was interrupted."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        write_run(folder / f"s{seed}", seed=seed, epochs=2, val_accs=values)
        for seed, values in enumerate(ACCURACIES)
    ]
    runs.insert(1, write_run(folder / "other", lr=0.5, epochs=9, done=1, wandb__mode="disabled"))
    result = subprocess.run(
        [sys.executable, "-m", "jaxcifar.report", *runs, "--output=seeds.html"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    assert (result.returncode, result.stdout) == (0, "seeds.html\n"), result.stderr
    return Page(folder / "seeds.html")


def test_seeds_are_one_line_with_mean_std_and_interval(page):
    values = [max(row) for row in ACCURACIES]
    mean, std = statistics.mean(values), statistics.stdev(values)
    half_width = 4.302652729749 * std / 3**0.5  # t of 2 degrees of freedom, at 97.5%
    cell = f"{mean:.1f} ± {std:.1f} [{mean - half_width:.1f}, {mean + half_width:.1f}]"
    assert f"1: s0 (3 seeds) {cell}" in page.text
    assert "4 runs, 2 configs" in page.text
    assert "2: other 45.0" in page.text


def test_states_and_differences_are_shown(page):
    assert "interrupted after 1 of 9 epochs" in page.text
    assert page.text.count("finished after 2 of 2 epochs") == 3
    differences = page.text[page.text.index("Keys whose values differ") :]
    assert "num_epochs 2 9" in differences
    assert "optimizer.lr 0.1 0.5" in differences
    assert "wandb.mode auto disabled" in differences
    assert "seed" not in differences.replace("(3 seeds)", "")


def test_curves_have_the_means_and_a_band(page):
    assert len(page.charts) == 2
    for svg in page.charts:
        assert "FillBetweenPolyCollection_1" in svg
        assert "FillBetweenPolyCollection_2" not in svg
    assert "1 51.0 45.0 2 61.6" in page.text  # epoch, mean accuracies


def test_it_holds_everything_itself(page):
    assert "http" not in page.source
    assert all(image["alt"] for image in page.all("img"))
