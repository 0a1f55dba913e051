"""Writes corruptions.npz: what scikit-image, OpenCV and Pillow make of images, for
tests/test_corruptions_*.py.

python tests/golden/make_corruptions.py     needs scikit-image, opencv-python-headless and pillow

Each corruption is written here as the benchmark's code composes it from those libraries (Hendrycks
& Dietterich 2019, arXiv:1903.12261), with the constants for images of 32 pixels.
"""

import io
import pathlib

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import color, filters

PATH = pathlib.Path(__file__).parent / "corruptions.npz"
SIZE = 32
LIQUIDS = ((0.62, 0.1, 0.7, 0.7), (0.65, 0.1, 0.8, 0.7), (0.65, 0.3, 1.0, 0.69))
CORNERS = np.float32([[26, 26], [26, 6], [6, 6]])  # (x, y)
MOVED = CORNERS + np.float32([[1.3, -2.1], [0.4, 2.5], [-1.7, -0.6]])


def brightness(image: np.ndarray, offset: float) -> np.ndarray:
    """Adds to the value of HSV."""
    hsv = color.rgb2hsv(image)
    hsv[..., 2] = np.clip(hsv[..., 2] + offset, 0, 1)
    return color.hsv2rgb(hsv)


def saturate(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """Scales and shifts the saturation of HSV."""
    hsv = color.rgb2hsv(image)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0, 1)
    return color.hsv2rgb(hsv)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Pulls channels toward their means."""
    mean = image.mean((0, 1))
    return (image - mean) * factor + mean


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths."""
    return filters.gaussian(image, sigma, channel_axis=-1)


def defocus_blur(image: np.ndarray, radius: float, softness: float) -> np.ndarray:
    """Averages over a softened disk."""
    y, x = np.mgrid[-8:9, -8:9]
    disk = np.float32(x**2 + y**2 <= radius**2)
    kernel = cv2.GaussianBlur(disk / disk.sum(), (3, 3), sigmaX=softness)
    return cv2.filter2D(image, -1, kernel)


def zoom_blur(image: np.ndarray, end: float) -> np.ndarray:
    """Averages zooms of the center."""
    zooms = np.arange(1, end, 0.01)
    return (image + sum(zoomed(image, zoom) for zoom in zooms)) / (len(zooms) + 1)


def zoomed(image: np.ndarray, zoom: float) -> np.ndarray:
    """Returns the center of an image [H, W, C], zoomed."""
    window = int(np.ceil(SIZE / zoom))
    start = (SIZE - window) // 2
    center = image[start : start + window, start : start + window]
    larger = ndimage.zoom(center, (zoom, zoom, 1), order=1)
    margin = (len(larger) - SIZE) // 2
    return larger[margin : margin + SIZE, margin : margin + SIZE]


def pixelate(image: Image.Image, scale: float) -> Image.Image:
    """Resizes there and back."""
    small = image.resize((int(SIZE * scale), int(SIZE * scale)), Image.Resampling.BOX)
    return small.resize((SIZE, SIZE), Image.Resampling.BOX)


def jpeg_compression(image: Image.Image, quality: int) -> Image.Image:
    """Compresses."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def water(liquid: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the stages of spatter's water, for a layer of liquid float [H, W]."""
    levels = np.uint8(liquid * 255)
    edges = cv2.Canny(levels, 50, 150)
    distance = cv2.distanceTransform(255 - edges, cv2.DIST_L2, 5)
    distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)[1]
    mean = np.uint8(cv2.blur(distance, (3, 3)))
    equalized = cv2.equalizeHist(mean)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    light = levels * np.float32(cv2.blur(cv2.filter2D(equalized, cv2.CV_8U, emboss), (3, 3)))
    return {
        "levels": levels,
        "edges": edges > 0,
        "distance": np.float32(distance),
        "mean": mean,
        "equalized": equalized,
        "highlights": np.float32(light / light.max()),
    }


# By corruption: the function and its arguments at the five severities
FLOATS = {
    brightness: ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    saturate: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    contrast: ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    gaussian_blur: ((0.4,), (0.6,), (0.7,), (0.8,), (1,)),
    defocus_blur: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    zoom_blur: ((1.06,), (1.11,), (1.16,), (1.21,), (1.26,)),
}
IMAGES = {
    pixelate: ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    jpeg_compression: ((80,), (65,), (58,), (50,), (40,)),
}


def make_images() -> np.ndarray:
    """Returns uint8 [2, H, W, 3]: smooth colors, and gray and saturated stripes."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    stripes = np.repeat(rng.integers(0, 256, (8, SIZE, 3), np.uint8), SIZE // 8, 0)
    stripes[:8] = stripes[:8, :, :1]
    stripes[8:16, :, 1] = 0
    return np.stack([np.asarray(smooth.resize((SIZE, SIZE), Image.Resampling.BICUBIC)), stripes])


def main() -> None:
    images = make_images()
    outputs = {}
    for function, severities in FLOATS.items():
        outputs[function.__name__] = [
            [np.uint8(np.clip(function(image / 255, *c), 0, 1) * 255) for image in images]
            for c in severities
        ]
    for function, severities in IMAGES.items():
        outputs[function.__name__] = [
            [np.asarray(function(Image.fromarray(image), *c)) for image in images]
            for c in severities
        ]
    rng = np.random.default_rng(0)
    liquids = []
    for loc, scale, sigma, threshold in LIQUIDS:
        liquid = filters.gaussian(rng.normal(loc, scale, (SIZE, SIZE)), sigma)
        liquids.append(np.float32(np.where(liquid < threshold, 0, liquid)))
    stages = [water(liquid) for liquid in liquids]
    warped = cv2.warpAffine(
        np.float32(images[0]),
        cv2.getAffineTransform(CORNERS, MOVED),
        (SIZE, SIZE),
        borderMode=cv2.BORDER_REFLECT_101,
    )
    np.savez_compressed(
        PATH,
        images=images,
        liquids=liquids,
        corners=CORNERS,
        moved=MOVED,
        warped=warped,
        **{name: np.array(values) for name, values in outputs.items()},
        **{f"water_{name}": [stage[name] for stage in stages] for name in stages[0]},
    )


if __name__ == "__main__":
    main()
