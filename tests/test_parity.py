"""The parity page: with rows of the tests' own; and, where PyTorch is installed, every row."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import torch_reference

from jaxcifar import augment, gradient_transforms, losses, optimizers, schedules
from jaxcifar.augment import color, geometry, mix, policies
from jaxcifar.models import layers
from jaxcifar.parity import page, rows
from jaxcifar.parity.rows import DISTRIBUTION_OF_LEVELS, K_S_LIMIT, Measure

ONES = np.ones(4)


@pytest.fixture
def check(monkeypatch):
    """Declares a row of two sides and runs it: fn(ours, theirs, **declaration) -> Result."""
    monkeypatch.setattr(rows, "ROWS", {})

    def check(ours, theirs, **declaration):
        declaration = {
            "tolerance": 1e-3,
            "reason": "rounding",
            "against": "torch.one",
        } | declaration
        what = f"row {len(rows.ROWS)}"
        rows.row(what, group="Toys", **declaration)(lambda: (ours, theirs))
        return rows.run(rows.ROWS["Toys", what])

    return check


def test_a_row_agrees_within_its_tolerance(check):
    result = check({"a": ONES, "b": 1e-12 * ONES}, {"a": 1.0005 * ONES, "b": 0 * ONES})
    assert result.agrees
    assert result.difference == pytest.approx(0.0005 / 1.0005)
    assert (result.where, result.count) == ("a", 8)
    assert not check(ONES, 1.01 * ONES).agrees
    assert not check(ONES, 1.0005 * ONES, tolerance=0).agrees


def test_a_difference_by_design_has_to_be_one(check):
    assert check(ONES, 2 * ONES, by_design=True).agrees
    assert not check(ONES, ONES, by_design=True).agrees


@pytest.mark.parametrize("by_design", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"a": ONES}, {"a": ONES, "b": ONES}, "ours lacks b"),
        ({"a": ONES, "c": ONES}, {"a": ONES}, "theirs lacks c"),
        ({"a": ONES}, {"a": np.ones(3)}, r"a is \(4,\), theirs \(3,\)"),
        (np.nan * ONES, np.nan * ONES, "the result is not finite: ours"),
        (ONES, np.inf * ONES, "the result is not finite: theirs"),
        ({}, {}, "nothing was compared"),
        (np.ones((0, 3)), np.ones((0, 3)), "nothing was compared"),
    ],
)
def test_what_cannot_be_compared_fails(check, ours, theirs, message, by_design):
    result = check(ours, theirs, by_design=by_design)
    assert not result.agrees
    assert re.fullmatch(message, result.error)


def test_an_exception_and_a_difference_that_is_no_number_fail(check):
    def raises(ours, theirs):
        raise KeyError("no such thing")

    result = check(ONES, ONES, measure=Measure("", "", raises))
    assert not result.agrees
    assert result.error == "KeyError: 'no such thing'"
    for by_design in (False, True):
        nan = Measure("", "", lambda ours, theirs: {"": np.nan})
        assert not check(ONES, ONES, measure=nan, by_design=by_design).agrees


def test_a_row_has_a_name_of_its_own(check):
    check(ONES, ONES)
    with pytest.raises(ValueError, match="there is a row 'row 0' in Toys already"):
        rows.row("row 0", group="Toys", against="", tolerance=0, reason="")(lambda: None)


def test_float64_is_in_effect_for_rows_in_float64_only(check):
    dtypes = []
    for dtype in ("float64", "float32"):
        rows.row(dtype, group="Toys", against="", tolerance=0, reason="", dtype=dtype)(
            lambda: (dtypes.append(jnp.ones(1).dtype.name), (ONES, ONES))[1]
        )
        assert rows.run(rows.ROWS["Toys", dtype]).agrees
    assert dtypes == ["float64", "float32"]


def test_arrays_of_rounding_alone_are_measured_by_the_rows_largest(check):
    noise = 1e-17 * np.random.default_rng(0).normal(size=(2, 9))
    assert check({"w": ONES, "b": noise[0]}, {"w": ONES, "b": noise[1]}, tolerance=1e-9).agrees
    assert not check({"w": ONES, "b": ONES}, {"w": ONES, "b": 1e-3 * ONES}, tolerance=1e-9).agrees


def test_pixels_are_counted_in_the_worst_image(check):
    theirs = np.zeros((2, 10, 10, 3))
    ours = theirs.copy()
    ours[1, 0, :4, 1] = 7
    result = check(ours, theirs, measure=rows.PIXELS, tolerance=0.03)
    assert result.difference == pytest.approx(0.04)
    assert not result.agrees


def test_distributions_are_told_apart(check):
    rng = np.random.default_rng(0)
    ours, same = rng.uniform(size=3000), rng.uniform(size=1000)
    declaration = {"measure": rows.DISTRIBUTION, "tolerance": K_S_LIMIT}
    result = check(ours, same, **declaration)
    assert result.agrees
    statistic = scipy.stats.ks_2samp(ours, same).statistic * (3000 * 1000 / 4000) ** 0.5
    assert result.difference == pytest.approx(statistic)
    assert not check(ours, 0.85 * same, **declaration).agrees
    # Of two values, one is moved by rounding
    flips = [rng.integers(2, size=count) for count in (3000, 1000)]
    rounded = [flips[0] / 1.0, flips[1] * 254 / 255]
    assert not check(*rounded, **declaration).agrees
    declaration["measure"] = DISTRIBUTION_OF_LEVELS
    assert check(*rounded, **declaration).agrees
    assert not check(rounded[0], rng.random(1000) < 0.3, **declaration).agrees


def test_means_and_spreads_are_told_apart(check):
    rng = np.random.default_rng(0)
    ours, same = rng.normal(size=(2, 5000))
    declaration = {"measure": rows.STANDARD_ERRORS, "tolerance": 6}
    assert check(ours, same, **declaration).agrees
    assert not check(ours, same + 0.2, **declaration).agrees
    assert not check(ours, 1.2 * same, **declaration).agrees


# --- the page and the command ---------------------------------------------------------------------


@pytest.fixture
def results(check):
    return [
        check(ONES, ONES),
        check({"kernel": ONES}, {"kernel": 2 * ONES}),
        check(ONES, 2 * ONES, by_design=True, reason="a <reason>"),
        check(ONES, np.ones(3)),
    ]


def test_the_terminal_lists_what_failed_at_the_end(results, capsys):
    assert page.show(iter(results), "torch 2") == results
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "torch 2"
    assert lines[-3:] == [
        "DISAGREES: Toys: row 1, against torch.one: 0.5 instead of 0.001 of the largest, in kernel",
        "DISAGREES: Toys: row 3, against torch.one: the result is (4,), theirs (3,)",
        "1 of 3 rows agree; 1 of 1 differ by design, as stated",
    ]


def test_the_html_page_shows_them_in_red_and_loads_nothing(results, tmp_path):
    path = page.write(results, "torch 2", 12.3, tmp_path / "parity.html")
    source = path.read_text()
    red = re.findall(r'<tr class="bad"><th scope="row">([^<]*)</th>', source)
    assert red == ["row 1", "row 3"]
    assert "DISAGREES: Toys: row 1" in source[source.index('id="failed"') :]
    assert "a &lt;reason&gt;" in source
    assert "1 of 3 rows agree" in source
    assert not re.search(r'(src|href)="(?!data:|#)', source)
    assert 'class="bad"' not in page.write(results[:1], "", 1.0, path).read_text()


def run(code, *flags):
    return subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, text=True, timeout=120
    )


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"
LAUNCH = "from jaxcifar.parity.__main__ import launch; launch()"


def test_help_imports_neither_jax_nor_torch():
    heavy = "assert not {'jax', 'torch'} & set(sys.modules)"
    done = run(f"import atexit, sys; atexit.register(lambda: exec({heavy!r}))\n{LAUNCH}", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "pip install --index-url https://download.pytorch.org/whl/cpu"),
        (["--output=page.pdf"], "--output='page.pdf' must be a file named *.html"),
    ],
)
def test_what_to_mend_is_one_line(flags, message):
    done = run(WITHOUT_TORCH + LAUNCH, *flags)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert message in line


@pytest.mark.torch
@pytest.mark.parametrize(("tolerance", "code"), [(1e-12, 0), (-1.0, 1)])
def test_the_exit_code_says_whether_all_rows_agree(tmp_path, tolerance, code):
    torch_reference.torchvision()
    only_linear = f"""
import dataclasses
from jaxcifar.torchvision_compat import import_torchvision
import_torchvision()
from jaxcifar.parity import rows, run
row = rows.ROWS["Layers", "linear: output and gradients"]
rows.ROWS.clear()
rows.ROWS["Layers", row.what] = dataclasses.replace(row, tolerance={tolerance})
"""
    done = run(only_linear + LAUNCH, f"--output={tmp_path / 'page.html'}")
    assert done.returncode == code, done.stderr
    assert "linear" in (tmp_path / "page.html").read_text()


# --- the rows -------------------------------------------------------------------------------------

GROUPS = ("Layers", "Networks", "Initialization", "Optimizers", "Schedules", "Transforms")
GROUPS += ("Random transforms", "Mixing", "Training", "Different by design")


@pytest.fixture
def all_rows():
    torch_reference.torchvision()  # or the test is skipped
    import torch

    from jaxcifar.parity import run

    torch.set_num_threads(1)  # as the command does
    return run.all_rows()


@pytest.mark.torch
@pytest.mark.parametrize("group", GROUPS)
def test_every_row_agrees(all_rows, group):
    members = [row for row in all_rows if row.group == group]
    assert members
    failed = page.failures([rows.run(row) for row in members])
    assert not failed, "\n".join(map(page.describe, failed))


@pytest.mark.torch
def test_groups_transforms_and_optimizers_are_complete(all_rows):
    assert tuple(dict.fromkeys(row.group for row in all_rows)) == GROUPS
    for registry in (augment.TRANSFORMS, optimizers.OPTIMIZERS):
        for name, entry in registry.items():
            if "jaxcifar" in entry.file:
                assert any(re.match(rf"{name}\b", row.what, re.I) for row in all_rows), name


def unsmoothed(logits, targets, label_smoothing=0.0):
    return CROSS_ENTROPY(logits, targets)


def larger_variance(*arguments):
    y, mean, var = BATCH_NORM(*arguments)
    return y, mean, 1.001 * var


CROSS_ENTROPY, BATCH_NORM = losses.cross_entropy, layers._batch_norm

# What is wrong, and a row that has to say so
WRONG = [
    (losses, "cross_entropy", unsmoothed, "cross-entropy, labels, smoothed by 0.1"),
    (layers, "_batch_norm", larger_variance, "BatchNorm's running statistics"),
    (layers, "_kaiming_normal_fan_out", layers._torch_kernel_init, "torchvision's 7×7 stem: mean"),
    (schedules, "_cosine", lambda a, b, x: a + (b - a) * x, "CosineAnnealingLR: learning rate"),
    (
        gradient_transforms,
        "add_decoupled_weight_decay",
        lambda *_: optax.identity(),
        "AdamW: 200 steps, weight_decay 0.01",
    ),
    (color, "to_grayscale", lambda planes: planes.mean(0), "adjust_contrast"),
    (geometry, "_radians", lambda degrees: degrees * 0.0175, "rotate by"),
    (policies, "_random_signs", lambda op, level, uniform: level, "trivial_augment"),
    (mix, "_symmetric_beta", lambda key, alpha: jax.random.uniform(key), "mixup's lam"),
    (
        gradient_transforms,
        "clip_by_global_norm",
        lambda _: optax.identity(),
        "Part 3's AdamW and OneCycleLR",
    ),
]


@pytest.mark.torch
@pytest.mark.parametrize(("module", "name", "wrong", "what"), WRONG, ids=[w[1] for w in WRONG])
def test_a_wrong_function_fails_a_row(all_rows, monkeypatch, module, name, wrong, what):
    from jaxcifar.parity import initialization, training

    monkeypatch.setattr(module, name, wrong)
    for cached in (initialization.stem, training.outcomes):
        cached.cache_clear()
    try:
        row = next(row for row in all_rows if row.what.startswith(what))
        result = rows.run(row)
        assert result.difference > row.tolerance
    finally:
        for cached in (initialization.stem, training.outcomes):
            cached.cache_clear()
