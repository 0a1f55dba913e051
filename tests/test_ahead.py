import concurrent.futures
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcifar.ahead import AheadOfTime


@pytest.fixture
def traced():
    """What the function below was traced for."""
    return []


@pytest.fixture
def function(traced):
    def multiply(tree, array, *, times):
        traced.append((array.shape, times))
        if times > 9:
            raise ValueError("more than 9 times")
        return (tree["a"] + array) * times

    return AheadOfTime(multiply, static_argnames="times")


def test_what_was_compiled_in_the_background_is_used(function, traced):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        abstract = {"a": jax.ShapeDtypeStruct((), jnp.float32)}
        function.start(executor, abstract, jax.ShapeDtypeStruct((3,), jnp.float32), times=2)
        function.start(executor, abstract, jax.ShapeDtypeStruct((3,), jnp.float32), times=2)
    assert traced == [((3,), 2)] and len(function.programs()) == 1
    value = function({"a": jnp.float32(1)}, np.float32([0, 1, 2]), times=2)
    np.testing.assert_array_equal(value, [2, 4, 6])
    assert traced == [((3,), 2)]


def test_what_was_not_is_compiled_once_by_its_first_call(function, traced):
    for _ in range(2):
        for size in (2, 3):
            value = function({"a": jnp.float32(1)}, jnp.zeros(size), times=3)
            np.testing.assert_array_equal(value, np.full(size, 3))
    assert traced == [((2,), 3), ((3,), 3)]


def test_what_was_cancelled_is_compiled_by_the_call(function):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    begun, release = threading.Event(), threading.Event()
    executor.submit(lambda: (begun.set(), release.wait()))
    begun.wait()
    function.start(executor, {"a": 1.0}, np.zeros(3), times=2)
    executor.shutdown(wait=False, cancel_futures=True)
    release.set()
    np.testing.assert_array_equal(function({"a": 1.0}, np.zeros(3), times=2), [2, 2, 2])


def test_errors_of_the_background_are_raised_by_the_call(function):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        function.start(executor, {"a": 1.0}, np.zeros(3), times=10)
    with pytest.raises(ValueError, match="more than 9"):
        function({"a": 1.0}, np.zeros(3), times=10)
