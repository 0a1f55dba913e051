"""Weather: snow, frost, fog, sunshine, and spatter of rain or mud.

Hendrycks & Dietterich 2019, arXiv:1903.12261; planes are float32 [3, H, W] in [0, 1], and lengths
are in pixels.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from jaxcifar.augment import color, sampling
from jaxcifar.corruptions import filters, photographs, water
from jaxcifar.corruptions.registry import corruption

_MUD = np.array([63, 42, 20], np.float32)[:, None, None] / 255
_PALE_TURQUOISE = np.array([175, 238, 238], np.float32)[:, None, None] / 255


@corruption(
    is_standard=True,
    constants={
        "loc": (0.1, 0.1, 0.15, 0.25, 0.3),
        "scale": (0.2, 0.2, 0.3, 0.3, 0.3),
        "zoom": (1.0, 1.0, 1.75, 2.25, 1.25),
        "threshold": (0.6, 0.5, 0.55, 0.6, 0.65),
        "radius": (8.0, 10.0, 10.0, 12.0, 14.0),
        "sigma": (3.0, 4.0, 4.0, 6.0, 12.0),
        "mix": (0.95, 0.9, 0.9, 0.85, 0.8),
    },
)
def snow(
    key: jax.Array,
    planes: jax.Array,
    loc: float,
    scale: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    mix: float,
) -> jax.Array:
    """Lets flakes, and the same flakes turned by 180 degrees, fall over a whitened image: noise of
    mean `loc` and deviation `scale`, zoomed, of which values above `threshold` are blurred by
    motion. `mix` is the share of the image that is not whitened.
    """
    height, width = planes.shape[1:]
    noise_key, angle_key = jax.random.split(key)
    noise = loc + scale * jax.random.normal(noise_key, (height, width))
    noise = filters.separable(
        noise, filters.zoom_matrix(height, zoom), filters.zoom_matrix(width, zoom)
    )
    flakes = jnp.floor(jnp.where(noise < threshold, 0, jnp.clip(noise, 0, 1)) * 255) / 255
    degrees = jax.random.uniform(angle_key, minval=-135, maxval=-45)
    flakes = filters.motion(flakes, radius, sigma, degrees)
    red, green, blue = planes
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    whitened = mix * planes + (1 - mix) * jnp.maximum(planes, 1.5 * gray + 0.5)
    return whitened + flakes + flakes[::-1, ::-1]


@corruption(
    is_standard=True,
    is_available=photographs.are_installed,
    constants={
        "image_share": (1.0, 1.0, 0.9, 0.85, 0.75),
        "frost_share": (0.2, 0.3, 0.4, 0.4, 0.45),
    },
)
def frost(key: jax.Array, planes: jax.Array, image_share: float, frost_share: float) -> jax.Array:
    """Adds a random window of one of five photographs of frost. Photographs that are smaller than
    the image are repeated.

    Raises:
        ConfigError: the package with the photographs is not installed.
    """
    height, width = planes.shape[1:]
    photos, sizes = photographs.load()
    which, down, right = jax.random.uniform(key, (3,))
    photo = sampling.uniform_to_index(which, len(photos))
    size = jnp.asarray(sizes)[photo]
    room = jnp.maximum(size - np.array([height, width]), 1)
    corner = sampling.uniform_to_index(jnp.stack([down, right]), room)
    rows = (corner[0] + np.arange(height)) % size[0]
    columns = (corner[1] + np.arange(width)) % size[1]
    window = jnp.asarray(photos)[photo, :, rows[:, None], columns]  # [H, W, 3]
    return image_share * planes + frost_share / 255 * jnp.moveaxis(window, -1, 0)


@corruption(
    is_standard=True,
    constants={"amount": (0.2, 0.5, 0.75, 1.0, 1.5), "decay": (3.0, 3.0, 2.5, 2.0, 1.75)},
)
def fog(key: jax.Array, planes: jax.Array, amount: float, decay: float) -> jax.Array:
    """Adds `amount` of a random height map in [0, 1] and scales so that the largest value stays."""
    height, width = planes.shape[1:]
    brightest = planes.max()
    hazy = planes + amount * _plasma(key, max(height, width), decay)[:height, :width]
    return hazy * brightest / (brightest + amount)


@corruption(is_standard=True, constants={"offset": (0.05, 0.1, 0.15, 0.2, 0.3)})
def brightness(planes: jax.Array, offset: float) -> jax.Array:
    """Adds to the value of HSV."""
    hue, saturation, value = pix.rgb_to_hsv(planes, channel_axis=0)
    return color.hsv_to_rgb(hue, saturation, jnp.clip(value + offset, 0, 1))


@corruption(
    constants={
        "loc": (0.62, 0.65, 0.65, 0.65, 0.65),
        "scale": (0.1, 0.1, 0.3, 0.1, 0.1),
        "sigma": (0.7, 0.8, 1.0, 0.7, 0.5),
        "threshold": (0.7, 0.7, 0.69, 0.69, 0.68),
        "strength": (0.5, 0.5, 0.5, 0.6, 0.6),
        "is_mud": (False, False, False, True, True),
    },
)
def spatter(
    key: jax.Array,
    planes: jax.Array,
    loc: float,
    scale: float,
    sigma: float,
    threshold: float,
    strength: float,
    is_mud: bool,
) -> jax.Array:
    """Spatters water or mud where noise of mean `loc` and deviation `scale`, smoothed by a Gaussian
    of `sigma`, exceeds a threshold. `strength` is the opacity of the water, or the sigma that
    softens the edges of the mud.
    """
    noise = loc + scale * jax.random.normal(key, planes.shape[1:])
    noise = filters.gaussian(noise, sigma, 4)
    liquid = jnp.where(noise < threshold, 0, noise)

    def add_mud() -> jax.Array:
        cover = filters.gaussian((liquid > threshold).astype(jnp.float32), strength, 2)
        cover = jnp.where(cover < 0.8, 0, cover)
        return planes * (1 - cover) + _MUD * cover

    def add_water() -> jax.Array:
        return planes + strength * water.highlights(liquid) * _PALE_TURQUOISE

    return jax.lax.cond(is_mud, add_mud, add_water)


def _plasma(key: jax.Array, size: int, decay: float) -> jax.Array:
    """Returns a random height map in [0, 1], by the diamond-square algorithm on a torus.

    Its sides are the smallest power of two that is at least `size`. From level to level the grid
    doubles, and the random offsets at the new points shrink by the square of `decay`. (The scale of
    the first ones does not matter: the map is scaled to [0, 1].)
    """
    num_levels = (size - 1).bit_length()
    uniform = jax.random.uniform(key, (4**num_levels,), minval=-1, maxval=1)
    grid, scale = jnp.zeros((1, 1)), 1.0
    for _ in range(num_levels):
        # draws 1 to 3 for the three new points, 4 to 15 for the next twelve, and so on
        offsets = scale * uniform[grid.size : 4 * grid.size].reshape(3, *grid.shape)
        beside = grid + jnp.roll(grid, -1, 1)
        below = grid + jnp.roll(grid, -1, 0)
        centers = (beside + jnp.roll(beside, -1, 0)) / 4 + offsets[0]
        tops = (beside + centers + jnp.roll(centers, 1, 0)) / 4 + offsets[1]
        lefts = (below + centers + jnp.roll(centers, 1, 1)) / 4 + offsets[2]
        upper, lower = jnp.stack([grid, tops], -1), jnp.stack([lefts, centers], -1)
        grid = jnp.stack([upper, lower], 1).reshape(2 * len(grid), -1)
        # XLA would fuse, and so compute a point once for each that depends on it
        grid = jax.lax.optimization_barrier(grid)
        scale = scale / decay**2
    grid = grid - grid.min()
    return grid / grid.max()
