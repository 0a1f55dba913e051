import numpy as np
import pytest

from jaxcifar.data import synthetic


def test_sizes_classes_and_determinism(tmp_path, monkeypatch, capsys):
    train, test = synthetic.load(300)
    assert train.images.shape == (300, 32, 32, 3)
    assert train.images.dtype == np.uint8
    assert test.images.shape == (60, 32, 32, 3)
    assert test.labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(train.labels), 3)
    assert len(train.class_names) == len(set(train.class_names)) == 100
    assert len({image.tobytes() for image in [*train.images, *test.images]}) == 360
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path))  # generated again, not read
    capsys.readouterr()
    again, _ = synthetic.load(300)
    assert again.fingerprint() == train.fingerprint()
    assert "Generating 360 images; later runs read" in capsys.readouterr().out
    synthetic.load(300)
    assert not capsys.readouterr().out


@pytest.mark.numerics
def test_larger_set_starts_with_the_smaller_one():
    """On one kind of processor; more images than one device call generates, and fewer."""
    larger, _ = synthetic.load(1500)
    smaller, _ = synthetic.load(300)
    np.testing.assert_array_equal(larger.images[:300], smaller.images)


def test_single_pixels_do_not_reveal_the_class():
    train, _ = synthetic.load(2000)
    pixels = train.images.reshape(2000, -1) / np.float32(255)
    means = np.stack([pixels[:1000][train.labels[:1000] == c].mean(0) for c in range(100)])
    # A nearest-class-mean classifier, the best that looks at single pixels, is near chance.
    distances = (means**2).sum(-1) - 2 * pixels[1000:] @ means.T  # less the image's own square
    assert (distances.argmin(1) == train.labels[1000:]).mean() < 0.10
