"""The pages show the committed results, and the bands come from them."""

import json
import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = json.loads((ROOT / "docs" / "results" / "cifar10.json").read_text())


def script(name):
    return runpy.run_path(str(ROOT / "scripts" / name))


@pytest.fixture(scope="module")
def tables():
    return script("show_results.py")["tables"](RESULTS)


def test_tables_are_in_the_pages(tables):
    page = (ROOT / "docs" / "results.md").read_text()
    for name, lines in tables.items():
        assert "\n".join(lines) in page, (
            f"docs/results.md: {name}: scripts/show_results.py prints it"
        )
    for name in ("parts", "recipes"):
        assert "\n".join(tables[name]) in README, f"README.md: {name}"


def test_bands_are_of_the_results():
    made = script("make_bands.py")
    for name, experiment in made["CONFIGS"].items():
        stored = json.loads((ROOT / "configs" / f"{name}.band.json").read_text())
        again = made["band"](RESULTS[experiment], {})
        assert stored["lr"] == again["lr"]
        assert stored["val_acc"] == again["val_acc"]


def test_every_run_is_on_its_band():
    made = script("make_bands.py")
    for experiment in set(made["CONFIGS"].values()):
        band = made["band"](RESULTS[experiment], {})["val_acc"]
        for run in RESULTS[experiment]["jaxcifar"]["runs"].values():
            assert all(
                low <= a <= high for a, (low, high) in zip(run["val_acc"], band, strict=True)
            )


def test_files_that_the_readme_links_to_are_there():
    links = {link.split("#")[0] for link in re.findall(r"\]\((?!http)([^)]+)\)", README)}
    assert len(links) > 10
    for link in links - {""}:
        assert (ROOT / link).exists(), link
