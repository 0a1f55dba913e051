import numpy as np

from jaxcifar import synthetic


def test_sizes_classes_and_determinism(tmp_path, monkeypatch):
    (images, labels), (test_images, test_labels) = synthetic.synthetic100(300)
    assert images.shape == (300, 32, 32, 3)
    assert images.dtype == np.uint8
    assert test_images.shape == (60, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), 3)
    assert len(synthetic.CLASS_NAMES) == len(set(synthetic.CLASS_NAMES)) == 100
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path))  # drawn again, not read
    (again, _), _ = synthetic.synthetic100(300)
    np.testing.assert_array_equal(images, again)
    assert test_labels.dtype == np.int32
    assert len({image.tobytes() for image in [*images, *test_images]}) == 360


def test_images_of_a_class_differ_and_no_pixel_tells_it():
    (images, labels), _ = synthetic.synthetic100(2000)
    pixels = images.reshape(2000, -1) / 255.0
    means = np.stack([pixels[:1000][labels[:1000] == c].mean(0) for c in range(100)])
    # A nearest-class-mean classifier, the best that looks at single pixels, is near chance.
    distances = ((pixels[1000:, None] - means[None]) ** 2).sum(-1)
    assert (distances.argmin(1) == labels[1000:]).mean() < 0.10
