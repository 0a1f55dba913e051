"""docs/api.md: as its script writes it, with links that lead somewhere, and without gaps."""

import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "make_api.py"))


def test_is_up_to_date(script):
    stored = PAGE.read_text(encoding="utf-8")
    assert script["page"]() == stored, "run: python scripts/make_api.py"


def test_every_link_has_its_heading():
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^##+ (.*)$", text, re.M)
    slugs = [re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in headings]
    anchors = [
        slug + (f"-{slugs[:i].count(slug)}" if slug in slugs[:i] else "")
        for i, slug in enumerate(slugs)
    ]
    assert re.findall(r"\]\(#([^)]+)\)", text) == anchors
    assert len(set(anchors)) == len(anchors)


def test_everything_has_a_docstring(script):
    members = [pair for module in script["MODULES"] for pair in script["public"](module)]
    assert len(members) > 40
    assert not [name for name, member in members if not (member.__doc__ or "").strip()]


@pytest.mark.parametrize(
    "line",
    [
        "- `padding` (`0`; an integer, 0 or more, or a tuple of 2 or 4",  # a transform's
        "- `optimizer.b2` (`0.999`; a number in [0, 1)): decay of the squared gradient",
        "- `schedule.max_lr` (required; a number above 0): highest learning rate",
        "- `model.stem` (`'cifar'`; one of 'cifar', 'imagenet'): 3×3 without pooling",
        "- `data.dir` (required; the path of a folder): the root of train/\\<class>/\\*",
        "- `photons`: 500, 250, 100, 75, 50 by severity",
    ],
)
def test_lists_parameters(line):
    assert f"\n{line}" in PAGE.read_text(encoding="utf-8")
