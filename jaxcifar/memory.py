"""The memory that is available, and whether images fit in it."""

import contextlib
import pathlib
from collections.abc import Iterator

import psutil

from jaxcifar.spec import ConfigError

_MEMBERSHIP = pathlib.Path("/proc/self/cgroup")
_CGROUPS = pathlib.Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Returns how much memory this process can still take without swapping: the machine's, or what
    is left below the limit of a control group (a container's, a batch job's) where that is less.
    """
    return min([psutil.virtual_memory().available, *_left_in_cgroups()])


def check(num_images: int, image_size: int) -> None:
    """Checks that there is memory for images of this size as uint8.

    Raises:
        ConfigError: there is not.
    """
    needed, available = 3 * num_images * image_size**2, available_bytes()
    if needed > available:
        raise ConfigError(
            f"{num_images:,} images of {image_size}×{image_size} pixels take {needed / 1e9:.2f} "
            f"GB, and {available / 1e9:.2f} GB of memory is available; use fewer, or a smaller "
            "config.data.image_size"
        )


def _left_in_cgroups() -> Iterator[int]:
    """Yields the bytes left in each of this process's control groups that has a limit."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:  # there are none
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names, cache = _CGROUPS, ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):  # version 1
            root, names = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cache = "total_inactive_file"
        else:
            continue
        group = root / path.strip("/")
        # A limit holds for all groups below. In a container the path may be the host's, which is
        # not there, and the root is the container's own group.
        for directory in (group, *group.parents):
            if directory.is_relative_to(root):
                with contextlib.suppress(OSError, ValueError):  # no limit: no such file, or "max"
                    limit, usage = (int((directory / name).read_text()) for name in names)
                    yield max(0, limit - usage + _cached_bytes(directory / "memory.stat", cache))


def _cached_bytes(statistics: pathlib.Path, name: str) -> int:
    """Returns the size of cached files, which count as used and are dropped when that runs out."""
    lines = statistics.read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
