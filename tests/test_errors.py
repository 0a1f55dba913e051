import errno

import pytest

from jaxcifar import errors
from jaxcifar.spec import ConfigError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            r"No space left .* \('/x'\); free some space",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a", None, "b"),
            "'a' -> 'b'",
        ),
        (OSError("odd"), "odd; fix that and start again"),
        (MemoryError(), "out of memory: reduce batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "out of memory: reduce batch_size"),
    ],
)
def test_errors_of_the_machine_are_plain(error, message):
    with pytest.raises(ConfigError, match=message), errors.machine():
        raise error


def test_bugs_pass():
    with pytest.raises(RuntimeError, match="bug"), errors.machine():
        raise RuntimeError("bug")


def test_reading_blames_the_file():
    with (
        pytest.raises(ConfigError, match=r"^the file 'x' cannot be read \(bad\); get another$"),
        errors.reading("the file 'x'", "get another"),
    ):
        raise ZeroDivisionError("bad")
    with pytest.raises(ConfigError, match=r"^own$"), errors.reading("the file"):
        raise ConfigError("own")
