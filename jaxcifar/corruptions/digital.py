"""Digital corruptions: contrast, elastic transforms, fewer pixels, compression and saturation.

Hendrycks & Dietterich 2019, arXiv:1903.12261; planes are float32 [3, H, W] in [0, 1], images uint8
[H, W, 3].
"""

import io

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from PIL import Image

from jaxcifar.augment import color
from jaxcifar.corruptions import filters
from jaxcifar.corruptions.registry import corruption


@corruption(is_standard=True, constants={"factor": (0.75, 0.5, 0.4, 0.3, 0.15)})
def contrast(planes: jax.Array, factor: float) -> jax.Array:
    """Pulls each channel toward its mean."""
    mean = planes.mean((1, 2), keepdims=True)
    return (planes - mean) * factor + mean


@corruption(
    is_standard=True,
    constants={
        "strength": (0.0, 1.6, 2.56, 3.2, 3.2),
        "sigma": (0.0, 6.4, 1.92, 1.28, 0.96),
        "corner_shift": (2.56, 2.24, 1.92, 1.6, 0.96),
    },
)
def elastic_transform(
    key: jax.Array, planes: jax.Array, strength: float, sigma: float, corner_shift: float
) -> jax.Array:
    """Moves three corners of a centered square by up to `corner_shift` pixels, and the image with
    them; then every pixel by a smooth random field.

    As OpenCV's `getAffineTransform` and `warpAffine` with BORDER_REFLECT_101, and then SciPy's
    `map_coordinates` of order 1 with the mode "reflect". The square's half-width is a third of the
    image's shorter side.
    """
    height, width = planes.shape[1:]
    uniform = jax.random.uniform(key, (6 + 2 * height * width,), minval=-1, maxval=1)
    shift = min(height, width) // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    corners = np.array([width // 2, height // 2]) + shift  # (x, y)
    moved = corners + corner_shift * uniform[:6].reshape(3, 2)
    warped = _sample(planes, *_corner_map(corners, moved, height, width), mode="mirror")
    field = uniform[6:].reshape(2, height, width)
    down, right = strength * filters.gaussian(field, sigma, 19, truncate=3, mode="symmetric")
    y, x = np.mgrid[:height, :width]
    return _sample(warped, y + down, x + right, mode="reflect")


@corruption(is_standard=True, on_host=True, constants={"scale": (0.95, 0.9, 0.85, 0.75, 0.65)})
def pixelate(image: np.ndarray, scale: float) -> np.ndarray:
    """Resizes to fewer pixels and back, with Pillow's box filter."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize(
        (int(width * scale), int(height * scale)), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


@corruption(is_standard=True, on_host=True, constants={"quality": (80, 65, 58, 50, 40)})
def jpeg_compression(image: np.ndarray, quality: int) -> np.ndarray:
    """Encodes as JPEG and decodes again, with Pillow."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@corruption(
    constants={"factor": (0.3, 0.1, 1.5, 2.0, 2.5), "offset": (0.0, 0.0, 0.0, 0.1, 0.2)},
)
def saturate(planes: jax.Array, factor: float, offset: float) -> jax.Array:
    """Scales and shifts the saturation of HSV. An offset turns gray into red, whose hue is 0."""
    hue, saturation, value = pix.rgb_to_hsv(planes, channel_axis=0)
    return color.hsv_to_rgb(hue, jnp.clip(saturation * factor + offset, 0, 1), value)


def _corner_map(
    corners: np.ndarray, moved: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the coordinates (y, x), each [H, W], of what an affine map that moves three corners
    shows at each pixel. Corners are [3, 2], (x, y).
    """
    # A point keeps its coordinates in terms of the two edges from the first corner.
    (a, b), (c, d) = moved[1:] - moved[0]
    to_edges = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    matrix = jnp.matmul(to_edges, corners[1:] - corners[0], precision="highest")
    y, x = np.mgrid[:height, :width]
    x_source, y_source = (
        corners[0, k] + (x - moved[0, 0]) * matrix[0, k] + (y - moved[0, 1]) * matrix[1, k]
        for k in range(2)
    )
    return y_source, x_source


def _sample(planes: jax.Array, y: jax.Array, x: jax.Array, mode: str) -> jax.Array:
    """Returns planes [3, H, W] at the coordinates [H, W], interpolated linearly."""
    return jax.vmap(lambda plane: map_coordinates(plane, (y, x), order=1, mode=mode))(planes)
