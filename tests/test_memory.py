import pytest

from jaxcifar import memory
from jaxcifar.spec import ConfigError


def test_available_memory_is_that_of_the_machine():
    assert 1e8 < memory.available_bytes() < 1e14


def test_images_that_do_not_fit_raise(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**9)
    memory.check(6_000, 224)
    message = r"10,000 images of 224×224 pixels take 1\.51 GB, and 1\.00 GB of memory is available"
    with pytest.raises(ConfigError, match=message):
        memory.check(10_000, 224)
