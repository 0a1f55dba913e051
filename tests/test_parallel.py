import jax
import numpy as np
import pytest

from jaxcifar import config as config_lib
from jaxcifar import parallel
from jaxcifar.spec import ConfigError


@pytest.mark.parametrize("rows", [16, 13, 1])
def test_batches_of_any_size_can_be_split(rows):
    mesh = parallel.setup(config_lib.default())
    assert mesh.size == jax.device_count()
    x = jax.device_put(np.arange(20.0), parallel.replicated(mesh))
    (out,) = jax.jit(lambda x: parallel.split_batch(mesh, x[:rows] * 2))(x)
    np.testing.assert_array_equal(out, np.arange(rows) * 2.0)


def test_requested_devices_of_an_initialized_jax_are_used():
    config = config_lib.default()
    assert parallel.setup(config).size == jax.device_count()
    config.parallel.cpu_devices = 2
    mesh = parallel.setup(config)
    assert mesh.size == 2
    assert parallel.describe(mesh).startswith("2 × ")


def test_data_that_does_not_fit_raises():
    mesh = parallel.setup(config_lib.default())
    parallel.check_fits(mesh, 1000)
    with pytest.raises(ConfigError, match=r"take 1000000\.00 GB on each of \d+ devices"):
        parallel.check_fits(mesh, 10**15)


def test_unknown_compiler_option_is_dropped(monkeypatch):
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices("cpu")[:1])
    assert parallel.compiler_options(mesh) == parallel.CPU_COMPILER_OPTIONS
    monkeypatch.setattr(parallel, "CPU_COMPILER_OPTIONS", {"xla_cpu_no_such_option": "1"})
    with pytest.warns(UserWarning, match="may be slow.*xla_cpu_no_such_option"):
        assert parallel.compiler_options(mesh) == {}
