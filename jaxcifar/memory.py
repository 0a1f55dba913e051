"""The memory that is available, and whether images fit in it."""

import psutil

from jaxcifar.spec import ConfigError


def available_bytes() -> int:
    """Returns how much memory this process can still get: unused memory and what the system's
    caches would give back.
    """
    return psutil.virtual_memory().available


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
