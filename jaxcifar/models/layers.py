"""Layers that behave like PyTorch's and are initialized like them, shared by the networks."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx


def conv(
    in_features: int,
    out_features: int,
    *,
    size: int,
    stride: int = 1,
    bias: bool = True,
    kernel_init: nnx.Initializer | None = None,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
) -> "Conv":
    """Returns a size×size convolution, zero-padded by size // 2 on every side, initialized as
    PyTorch's `Conv2d`, or its kernel by `kernel_init`.
    """
    return Conv(
        in_features,
        out_features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=bias,
        kernel_init=kernel_init or _torch_kernel_init,
        bias_init=_torch_bias_init(size * size * in_features),
        dtype=dtype,
        conv_general_dilated=_convolve,
        rngs=rngs,
    )


def kaiming_conv(
    in_features: int,
    out_features: int,
    size: int,
    stride: int,
    *,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
) -> "Conv":
    """Returns a size×size convolution without bias, initialized as in torchvision's ResNets:
    `kaiming_normal_(mode="fan_out")`.
    """
    return conv(
        in_features,
        out_features,
        size=size,
        stride=stride,
        bias=False,
        kernel_init=_kaiming_normal_fan_out,
        rngs=rngs,
        dtype=dtype,
    )


def linear(in_features: int, out_features: int, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> nnx.Linear:
    """Returns a fully connected layer with PyTorch's `Linear` initialization."""
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=_torch_kernel_init,
        bias_init=_torch_bias_init(in_features),
        dtype=dtype,
        rngs=rngs,
    )


class Conv(nnx.Conv):
    """Flax's convolution, its input and its output's gradient materialized (see `_materialize`)."""

    def __call__(self, inputs: jax.Array) -> jax.Array:
        if jnp.issubdtype(jnp.result_type(inputs), jnp.integer):
            raise TypeError(
                f"the images are {jnp.result_type(inputs)}, not normalized floats: use "
                "jaxcifar.evaluate.predict, which normalizes them"
            )
        return _materialize_gradient(super().__call__(_materialize(inputs)))


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **arguments,
) -> jax.Array:
    """`conv_general_dilated` of [B, H, W, C]; on a CPU, one matrix product where the result is 2×2
    or smaller: XLA's convolution takes 10 to 50 times as long there.
    """
    rows, columns = kernel.shape[:2]
    height = (x.shape[1] + sum(padding[0]) - rows) // strides[0] + 1
    width = (x.shape[2] + sum(padding[1]) - columns) // strides[1] + 1
    if max(height, width) > 2 or rows == columns == 1 or jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **arguments)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (down, across), (batch, _, _, channels) = strides, x.shape
    windows = [
        jax.lax.slice(
            x,
            (0, row, column, 0),
            (batch, row + down * (height - 1) + 1, column + across * (width - 1) + 1, channels),
            (1, down, across, 1),
        )
        for row in range(rows)
        for column in range(columns)
    ]
    return jnp.concatenate(windows, -1) @ kernel.reshape(-1, kernel.shape[-1])


class BatchNorm(nnx.Module):
    """PyTorch's `BatchNorm1d` and `BatchNorm2d`, the channels last: [..., num_features].

    In training mode it normalizes with the batch's mean and biased variance, over all devices,
    and moves the running statistics toward the mean and the *unbiased* variance by `momentum`
    (Flax's own layer moves them toward the biased one, by 1 - momentum). Statistics are computed
    in float32 at least: the variance around the mean, or, for bfloat16 activations, around the
    running mean and corrected, which reads them once and is more exact than they are. If a channel
    has a single value, PyTorch raises an error; here its variance is 0.
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.scale = nnx.Param(jnp.ones(num_features))
        self.bias = nnx.Param(jnp.zeros(num_features))
        self.mean = nnx.BatchStat(jnp.zeros(num_features))
        self.var = nnx.BatchStat(jnp.ones(num_features))
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.use_running_average = False  # model.eval() and model.train() set this

    def __call__(self, x: jax.Array, *, relu: bool = False) -> jax.Array:
        """Returns x [..., num_features] normalized, and then its ReLU if `relu`."""
        if self.use_running_average:
            x = at_least_float32(x)
            scale = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.epsilon)
            shift = self.bias[...] - self.mean[...] * scale
            y = (x * scale + shift).astype(self.dtype)
            return nnx.relu(y) if relu else y
        x, count = x.astype(self.dtype), x.size // x.shape[-1]
        shift = self.mean[...] if x.dtype == jnp.bfloat16 else None
        fused = relu and shift is not None  # on a CPU, in float32, it would be no faster
        y, mean, var = _batch_norm(x, self.scale[...], self.bias[...], shift, self.epsilon, fused)
        for running, batch in ((self.mean, mean), (self.var, var * (count / max(count - 1, 1)))):
            running[...] += self.momentum * (jax.lax.stop_gradient(batch) - running[...])
        return nnx.relu(y) if relu and not fused else y


def at_least_float32(x: jax.Array) -> jax.Array:
    """Returns x in float32, or as it is if it is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def global_average_pool(x: jax.Array) -> jax.Array:
    """Returns the mean of [B, H, W, C] over height and width: [B, C]."""
    if x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu":
        # XLA (jaxlib 0.11 and 0.12) would fuse the mean with what x comes from, and then return
        # values from memory that was never written, NaN among them.
        x = jax.lax.optimization_barrier(x)
    return x.mean(axis=(1, 2))


@jax.custom_vjp
def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Returns the 2×2 max-pool with stride 2 of [B, H, W, C], H and W even.

    As in PyTorch, ties go to the first element of a window, which gets the gradient. Written out
    because on a CPU the backward pass of XLA's windowed maximum is several times slower.
    """
    return _max_pool_forward(x)[0]


def _max_pool_forward(x):
    corners = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    largest = functools.reduce(jnp.maximum, corners)
    argmax = jnp.uint8(3)
    for corner in (2, 1, 0):
        argmax = jnp.where(corners[corner] == largest, jnp.uint8(corner), argmax)
    return largest, argmax


def _max_pool_backward(argmax, dy):
    b, h, w, c = dy.shape
    corner = jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1)
    argmax, dy = (a.reshape(b, h, 1, w, 1, c) for a in (argmax, dy))
    return (jnp.where(argmax == corner, dy, 0).reshape(b, 2 * h, 2 * w, c),)


max_pool_2x2.defvjp(_max_pool_forward, _max_pool_backward)


@jax.custom_vjp
def _materialize(x: jax.Array) -> jax.Array:
    """Returns x, materialized when training on a CPU.

    XLA's CPU compiler recomputes cheap elementwise work in every consumer. A convolution's input
    (and its output's gradient) is also read by the transposition for the kernel gradient, which
    strides through memory; recomputing BatchNorm and ReLU there costs a fifth of a ResNet-18 step.
    """
    return x


@jax.custom_vjp
def _materialize_gradient(x: jax.Array) -> jax.Array:
    """Returns x, whose gradient is materialized when training on a CPU."""
    return x


def _materialized_on_cpu(x):
    if jax.default_backend() != "cpu":
        return x
    # XLA never duplicates a division; dividing by 1 (inf and NaN by 2) is exact.
    return x / jnp.where(x < jnp.inf, x.dtype.type(1), x.dtype.type(2))


_materialize.defvjp(lambda x: (_materialized_on_cpu(x), None), lambda _, dx: (dx,))
_materialize_gradient.defvjp(lambda x: (x, None), lambda _, dx: (_materialized_on_cpu(dx),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    shift: jax.Array | None,
    epsilon: float,
    relu: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns x [..., C] normalized over all axes but the last, and then its ReLU if `relu`, in x's
    dtype; x's mean and biased variance [C], float32 at least.

    With `shift` [C], a guess of the mean, both moments are computed in one pass over x.

    The gradient is written out because JAX's own reads the activations more often (a ResNet-18
    step on a CPU takes 5% longer): a ReLU's mask is recomputed from x. It is that of the first
    result: the other two feed running averages only.
    """
    return _batch_norm_forward(x, scale, bias, shift, epsilon, relu)[0]


def _batch_norm_forward(x, scale, bias, shift, epsilon, relu):
    wide, axes, count = at_least_float32(x), tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    if shift is None:
        mean = wide.mean(axes)
        var = jnp.square(wide - mean).mean(axes)
    else:
        centered = wide - shift
        offset, square = (s / count for s in _sums_in_one_pass(centered, jnp.square(centered)))
        mean, var = shift + offset, jnp.maximum(square - jnp.square(offset), 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (wide - mean) * (scale * inverse) + bias
    y = nnx.relu(y) if relu else y
    return (y.astype(x.dtype), mean, var), (x, scale, bias, shift, mean, inverse)


def _batch_norm_backward(epsilon, relu, residuals, cotangents):
    x, scale, bias, shift, mean, inverse = residuals
    dy, centered = at_least_float32(cotangents[0]), at_least_float32(x) - mean
    count = x.size // x.shape[-1]
    if relu:
        dy = jnp.where(centered * (scale * inverse) + bias > 0, dy, 0)
    sums = _sums_in_one_pass if shift is not None else _sums
    dbias, dscale = sums(dy, dy * centered)
    dscale *= inverse
    dx = (dy - dbias / count - centered * (inverse * dscale / count)) * (scale * inverse)
    return dx.astype(x.dtype), dscale, dbias, None


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _sums(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the sums of arrays [..., C] over all axes but the last."""
    return tuple(x.sum(tuple(range(x.ndim - 1))) for x in arrays)


def _sums_in_one_pass(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the sums of arrays [..., C] of one shape over all axes but the last.

    In two stages: the first one, of 2^15 elements for each sum over channels, fills a GPU or all
    that share a batch; the second sums all arrays in one kernel. XLA's own way takes a kernel for
    each array in the second, and one stage for small arrays, which leaves most of the GPU idle.
    """
    size, channels = arrays[0].size, arrays[0].shape[-1]
    groups = math.gcd(size // channels, 1 << ((size - 1) >> 15).bit_length())
    partial = [x.reshape(groups, -1, channels).sum(1) for x in arrays]
    return tuple(jnp.stack(partial).sum(1))


_kaiming_normal_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")

# PyTorch draws weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)): `reset_parameters` of
# torch.nn.Linear and _ConvNd.
_torch_kernel_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
