import psutil
import pytest

from jaxcifar import memory
from jaxcifar.spec import ConfigError

GB = 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine with 8 GB available; fn(membership, {path: text}) puts this process in groups."""
    available = type("Memory", (), {"available": 8 * GB})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")

    def set_up(membership, files):
        memory._MEMBERSHIP.write_text(membership)
        for path, text in files.items():
            file = memory._CGROUPS / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(text))

    return set_up


def test_without_groups_it_is_the_machines(groups):
    assert memory.available_bytes() == 8 * GB


def test_here_it_is_some_of_the_machines():
    assert 0 < memory.available_bytes() <= psutil.virtual_memory().total
    assert isinstance(memory.available_bytes(), int)


def test_the_lowest_limit_of_a_group_and_those_above_holds_without_cached_files(groups):
    files = {
        "job/step/memory.max": 6 * GB,
        "job/step/memory.current": 1 * GB,
        "job/step/memory.stat": "anon 5\ninactive_file 0\n",
        "job/memory.max": 4 * GB,
        "job/memory.current": 3 * GB,
        "job/memory.stat": f"anon 5\ninactive_file {2 * GB}\nactive_file 7\n",
    }
    groups("0::/job/step\n", files)
    assert memory.available_bytes() == 3 * GB
    groups("", {"job/memory.max": "max"})
    groups("0::/job/step\n", {})
    assert memory.available_bytes() == 5 * GB


def test_a_container_of_version_1_whose_path_is_the_hosts(groups):
    files = {
        "memory/memory.limit_in_bytes": 2 * GB,
        "memory/memory.usage_in_bytes": 3 * GB // 2,
        "memory/memory.stat": "cache 1\ntotal_inactive_file 1000\n",
    }
    groups("3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n0::/\n", files)
    assert memory.available_bytes() == GB // 2 + 1000


def test_more_used_than_allowed_leaves_nothing(groups):
    files = {"memory.max": GB, "memory.current": 2 * GB, "memory.stat": ""}
    groups("0::/\n", files)
    assert memory.available_bytes() == 0


def test_images_that_do_not_fit_raise(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: GB)
    memory.check(6_000, 224)
    message = r"10,000 images of 224×224 pixels take 1\.51 GB, and 1\.00 GB of memory is available"
    with pytest.raises(ConfigError, match=message):
        memory.check(10_000, 224)
