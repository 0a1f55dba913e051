"""Between the data set and the network: augmentation, normalization, mixing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcifar import augment, parallel
from jaxcifar.augment import mix
from jaxcifar.rng import Use
from jaxcifar.spec import ConfigError


def normalize(images: jax.Array, config: ConfigDict) -> jax.Array:
    """Returns (images / 255 - data.mean) / data.std, float32, for uint8 images [..., 3]."""
    return _normalize_floats(images / jnp.float32(255), config)


def make_prepare_batches(
    config: ConfigDict, num_classes: int, mesh: Mesh
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns fn(images, labels, keys) -> images, targets, which prepares the batches of S steps.

    images uint8 [S, B, H, W, 3], labels int32 [S, B] and one key a step [S] become images float32
    [S, B, H, W, 3], augmented (each with its own key), normalized and mixed, and targets float32
    [S, B, num_classes]. With loss.consistency a batch has three views of its images, [S, 3·B, H, W,
    3]: all without augmix, then all with a draw of it, then with another. A step's batch does not
    depend on S. On a GPU a large S means few kernel launches, which is what the small operations of
    augmentation are bound by.
    """
    has_views = config.loss.consistency > 0
    parse = augment.parse_views if has_views else augment.parse
    transform = parse(config.augment, mean=config.data.mean) if config.augment else None

    def prepare_step(images, labels, key):
        images = images / jnp.float32(255)
        if transform:
            row_key = jax.vmap(jax.random.fold_in, (None, 0))
            keys = row_key(jax.random.fold_in(key, Use.AUGMENT), jnp.arange(len(labels)))
            augmented = jax.vmap(transform)(keys, images)
            if has_views:
                augmented = jnp.moveaxis(augmented, 1, 0).reshape(-1, *augmented.shape[2:])
            if augmented.shape[1:] != images.shape[1:]:
                sizes = ["×".join(map(str, x.shape[1:3])) for x in (images, augmented)]
                raise ConfigError(
                    f"config.augment={config.augment!r} turns images of {sizes[0]} pixels into "
                    f"{sizes[1]}: it must keep their size"
                )
            images = augmented
        images = _normalize_floats(images, config)
        targets = jax.nn.one_hot(labels, num_classes)
        if config.mixup.prob or config.cutmix.prob:
            key = jax.random.fold_in(key, Use.MIX)
            images, targets = mix.mix(
                key,
                images,
                targets,
                mixup_prob=config.mixup.prob,
                mixup_alpha=config.mixup.alpha,
                cutmix_prob=config.cutmix.prob,
                cutmix_alpha=config.cutmix.alpha,
            )
        return images, targets

    def prepare(images, labels, keys):
        images, labels = parallel.split_batch(mesh, images, labels, axis=1)
        return parallel.split_batch(mesh, *jax.vmap(prepare_step)(images, labels, keys), axis=1)

    return prepare


def _normalize_floats(images: jax.Array, config: ConfigDict) -> jax.Array:
    return (images - jnp.array(config.data.mean)) / jnp.array(config.data.std)
