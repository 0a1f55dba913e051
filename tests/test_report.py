import base64
import html
import html.parser
import json
import re
import shutil
import subprocess
import sys

import pytest
from report_runs import NAMES, write_run

from jaxcifar import report
from jaxcifar.spec import ConfigError

NAMESPACES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
NAMES_OF_SECTIONS = ["results", "curves", "classes", "confusions", "mistakes", "calibration"]
NAMES_OF_SECTIONS += ["corruptions", "augmentation", "config", "environment", "reproduce"]


class Page(html.parser.HTMLParser):
    """A page's elements, texts and pictures."""

    VOID = ("meta", "link", "img")

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.stack, self.elements, self.text = [], [], ""
        self.feed(self.source)
        assert not self.stack, self.stack
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"style"} & set(self.stack):
            self.text += f" {data}"

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def sections(self):
        return [attributes["id"] for attributes in self.all("section") if "id" in attributes]

    @property
    def charts(self):
        start = "data:image/svg+xml;base64,"
        sources = [image["src"] for image in self.all("img") if image["src"].startswith(start)]
        return [base64.b64decode(source.removeprefix(start)).decode() for source in sources]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a & <b>", augment="random_flip")


@pytest.fixture(scope="module")
def page(run):
    assert report.write(run) == run / "report.html"
    return Page(run / "report.html")


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("*.html"))


def test_all_sections_are_there_with_the_numbers_of_the_files(run, page):
    summary = json.loads((run / "summary.json").read_text())
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert page.sections == NAMES_OF_SECTIONS
    assert "Not in this report" not in page.text
    assert f"Test accuracy {summary['test_acc']:.1f}%" in page.text
    assert "Validation accuracy 60.0% after epoch 4" in page.text
    assert f"Test loss {summary['test_loss']:.3f}" in page.text
    assert "Accuracy under corruptions 35.9%" in page.text or "35.8%" in page.text
    assert "1,234,567" in page.text
    assert "4 min 0 s" in page.text
    for row in evaluation["per_class"]:
        assert f"{row['class']} {row['accuracy']:.1f} 30" in page.text
    assert "fog 50.5 40.4 30.3 20.2 10.1 30.3" in page.text
    full = [row for row in evaluation["calibration"]["bins"] if row["count"]]
    for row in full:
        assert f"{row['count']} {row['confidence']:.1f} {row['accuracy']:.1f}" in page.text
    assert "2 1.0000 1.2500 60.0 50.0" in page.text  # epoch, losses, accuracies
    assert "the records agree" in page.text
    assert "jax 9.8.7" in page.text
    assert "commit abc1234" in page.text


def test_the_report_holds_everything_itself(page):
    assert len(page.source) < 3e6
    outside = re.findall(r"https?://|//[a-z]+\.|url\((?!#)|@import", page.source)
    assert not outside
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert len(page.charts) == 6
    for svg in page.charts:
        for namespace in NAMESPACES:
            svg = svg.replace(f'"{namespace}"', "")
        assert "://" not in svg
        assert "prefers-color-scheme: dark" in svg
        assert not re.search(r"(fill|stroke): #(?!ffffff)", svg)  # all colors follow the scheme


def test_the_page_is_accessible_html(page):
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("title")) == len(page.all("main")) == 1
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert {cell["scope"] for cell in page.all("th")} == {"row", "col"}
    labels = [part["aria-label"] for part in page.all("section") if "aria-label" in part]
    assert len(labels) == len(set(labels)) == len(page.all("table"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)


def test_names_are_escaped(page):
    assert "b" not in {tag for tag, _ in page.elements}
    assert "Run a & <b>" in page.text
    for name in NAMES:
        assert name in page.text
    assert any("$odd$ name" in svg for svg in page.charts)
    assert any(f"class {NAMES[2]}" in image["alt"] for image in page.all("img"))


def test_the_examples_are_the_most_confident_mistakes(page):
    alts = [image["alt"] for image in page.all("img")]
    assert sum(alt.startswith("Test image of class") for alt in alts) == 24
    assert page.text.count(", taken for ") == 24 + 8


def test_config_and_command_say_what_differs_from_the_config_file(tmp_path):
    file = tmp_path / "small.py"
    file.write_text(
        "from jaxcifar import config as config_lib\n"
        "def get_config():\n"
        "    config = config_lib.default()\n"
        "    config.num_epochs, config.schedule.name = 4, 'cosine'\n"
        "    return config\n"
    )
    run = write_run(tmp_path / "run", done=1, augment="random_flip | random_rotation(10)", seed=7)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"config_file": str(file)}))
    page = Page(report.write(run, tmp_path / "other.html"))
    assert "running" not in page.text
    assert "interrupted after 1 of 4 epochs" in page.text
    assert "optimizer.lr 0.1 0.01" in page.text
    assert f"{file} has changed since the run started" in page.text
    command = page.text[page.text.index("python -m jaxcifar.main") :]
    assert "'--config.augment=random_flip | random_rotation(10)'" in command
    assert "--config.seed=7" in command
    assert "num_epochs" not in command
    file.unlink()
    page = Page(report.write(run, tmp_path / "other.html"))
    assert f"The config file {file} is not here" in page.text
    assert "num_epochs 4 5" in page.text  # than the default


def test_a_running_run_is_reported(copy):
    for name in ("summary.json", "evaluation.json", "examples.npz"):
        (copy / name).unlink()
    (copy / "lock").write_text("{}")
    page = Page(report.write(copy))
    assert "running: 4 of 4 epochs done" in page.text
    assert page.sections == ["results", "curves", "augmentation", "config", "reproduce"]
    assert "Validation accuracy 60.0%" in page.text
    for name in ("summary.json", "evaluation.json", "examples.npz"):
        assert f"{name} is missing" in page.text


def test_broken_files_are_left_out(copy):
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    lines[1] = lines[1][:30]
    lines[3] = '{"epoch": 4, "val_acc": NaN}'
    (copy / "metrics.jsonl").write_text("\n".join(lines))
    (copy / "summary.json").write_text("[1]")
    (copy / "preview.png").write_bytes((copy / "preview.png").read_bytes()[:500])
    (copy / "examples.npz").write_bytes(b"no archive")
    (copy / "classes.json").write_bytes(b"\xff\xfe")
    page = Page(report.write(copy))
    assert "metrics.jsonl: 2 of 4 lines cannot be read" in page.text
    for name in ("summary.json", "preview.png", "examples.npz", "classes.json"):
        assert f"{name} cannot be read" in page.text
    assert {"curves", "classes", "calibration"} <= set(page.sections)
    assert not {"mistakes", "augmentation", "environment"} & set(page.sections)
    assert NAMES[0] in page.text  # from evaluation.json


def test_files_with_unexpected_content_are_left_out(copy):
    evaluation = json.loads((copy / "evaluation.json").read_text())
    evaluation |= {"per_class": 3, "calibration": {"bins": None}, "corruptions": [1]}
    evaluation |= {"confusion_matrix": [[1, 2]], "top5_accuracy": "high"}
    (copy / "evaluation.json").write_text(json.dumps(evaluation))
    config = json.loads((copy / "config.json").read_text())
    config |= {"schedule": {"name": "nosuch"}, "own_key": {"<i>": [1, {"a": 2}]}, "seed": "x"}
    (copy / "config.json").write_text(json.dumps(config))
    page = Page(report.write(copy))
    assert {"curves", "mistakes", "config", "environment", "reproduce"} <= set(page.sections)
    assert not {"classes", "confusions", "calibration", "corruptions"} & set(page.sections)
    for heading in ("Accuracy by class", "Confusions", "Calibration", "Corruptions"):
        assert f"{heading}: the files cannot be read" in page.text
    assert "as recorded" in page.text


def test_what_cannot_be_reported_is_a_config_error(run, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="is not the work directory of a run"):
        report.write(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        report.write(run, tmp_path / "nosuch" / "x.html")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        report.write(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run is named"),
        (["TMP", "--output=x.txt"], "must be a file named *.html"),
        (["TMP"], "is not the work directory of a run"),
        (["RUN", "RUN/."], "is named twice"),
    ],
)
def test_invalid_commands_exit_with_2(run, tmp_path, arguments, message):
    places = {"RUN": run, "TMP": tmp_path}
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    result = subprocess.run(
        [sys.executable, "-m", "jaxcifar.report", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2, result.stdout
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
