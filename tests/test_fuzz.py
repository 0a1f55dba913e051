"""Whatever a config, an augmentation string, a work directory or an archive holds: it works, or a
ConfigError says why not.
"""

import functools
import gzip
import io
import shutil
import tarfile

import pytest
from cifar_files import archive_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxcifar import augment
from jaxcifar import config as config_lib
from jaxcifar.augment.registry import TRANSFORMS
from jaxcifar.config_keys import all_keys
from jaxcifar.data import cifar_archive
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError

fixed = functools.partial(
    settings,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def allow_config_error(function, *arguments):
    """Returns what the function returns, or the ConfigError that it raises."""
    try:
        return function(*arguments)
    except ConfigError as error:
        assert str(error).strip()
        return error


VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["None", "(1,2)", "[]", "((((", "1e999", "-0.0", "true", "'", "{}", "lambda: 0"]
    ),
)


@fixed(max_examples=200)
@given(st.sampled_from(sorted(all_keys())), VALUES)
def test_any_override(name, text):
    config = config_lib.default()
    allow_config_error(config_lib.override, config, name, text)
    allow_config_error(config_lib.validate, config)


PIECES = st.one_of(
    st.sampled_from(
        [*sorted(TRANSFORMS), "|", "(", ")", ",", "=", "size", "1", "-1", "1e9", "'a'"]
    ),
    st.text(max_size=3),
)


@fixed(max_examples=300)
@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_any_augmentation_string(text):
    allow_config_error(augment.parse, text)


@pytest.mark.parametrize("bracket", ["(", "[", "{", "-", "a(", "a|", "'"])
def test_deep_nesting(bracket):
    assert isinstance(allow_config_error(augment.parse, bracket * 100_000), ConfigError)
    config = config_lib.default()
    allow_config_error(config_lib.override, config, "data.mean", bracket * 100_000)


FILES = (
    "config.json",
    "classes.json",
    "metrics.jsonl",
    "summary.json",
    "lock",
    "checkpoints/last/20/progress.json",
    "checkpoints/last/20/manifest.json",
    "checkpoints/last/99999",
    "checkpoints/best",
)
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"{}", b"[]", b"null", b"{", b'{"a": NaN}', b"[" * 5000, b"\xff\xfe"]),
)


@pytest.fixture
def run_directory(small_config, tmp_path, add_checkpoint, monkeypatch):
    monkeypatch.setattr("jaxcifar.lock.SILENCE_SECONDS", 0.0)
    with Run.claim(small_config, tmp_path / "intact") as run:
        add_checkpoint(run, 1)
        add_checkpoint(run, 2)
    return run.directory


@fixed(max_examples=100)
@given(st.dictionaries(st.sampled_from(FILES), CONTENTS, min_size=1, max_size=3))
def test_any_file_in_a_work_directory(run_directory, small_config, contents):
    directory = run_directory.with_name("copy")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(run_directory, directory)
    for name, content in contents.items():
        path = directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    run = allow_config_error(Run.claim, small_config, directory)
    if isinstance(run, Run):
        run.finished_summary()
        assert run.progress.epoch in (1, 2)
        run.lock.release()


@functools.cache
def small_archive():
    files = archive_files("cifar100", "python")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@fixed(max_examples=50)
@given(st.data())
def test_any_damage_to_an_archive(tmp_path, monkeypatch, data):
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    content = bytearray(small_archive())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(gzip.compress(content, 1))
    allow_config_error(cifar_archive.load, "cifar100", path)
