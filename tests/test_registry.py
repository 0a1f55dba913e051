import functools

import pytest

from jaxcifar import registry
from jaxcifar.registry import Registry
from jaxcifar.spec import ConfigError, PositiveFloat, PositiveInt


@pytest.fixture
def shapes():
    """A registry with one entry, that of this file."""
    shapes = Registry("shape", reserved=("canvas",))

    def check(*, width, height):
        if height > width:
            raise ConfigError(f"height={height!r} must not exceed width={width!r}")

    @shapes.register("box", check=check)
    def draw_box(canvas, width: PositiveInt, height: PositiveInt = 1):
        return canvas, width, height

    return shapes


def define(source, filename):
    """Runs code as if it stood in a file."""
    scope = {"__name__": "config"}
    exec(compile(source, filename, "exec"), scope)
    return scope["draw"]


def test_entry_parameters_exclude_reserved_ones(shapes):
    assert list(shapes) == ["box"]
    assert list(shapes["box"].parameters) == ["width", "height"]
    assert shapes["box"].function("canvas", 3) == ("canvas", 3, 1)
    with pytest.raises(ConfigError, match="width=0"):
        shapes["box"].function("canvas", 0)


def test_arguments_are_set_values_and_defaults(shapes):
    arguments = shapes["box"].arguments
    assert arguments({"width": 3, "height": None, "color": "red"}) == {"width": 3, "height": 1}
    assert arguments({"width": None}) == {"height": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "shape.width=0 is not valid: it must be an integer, 1 or more"),
        ({"width": 1, "height": 2}, "shape.height=2 must not exceed width=1"),
        ({"widht": 1}, "box has no parameter 'widht'; it has width, height"),
    ],
)
def test_validate_checks_values_alone_and_together(shapes, values, message):
    with pytest.raises(ConfigError, match=message):
        shapes["box"].validate(values, "shape.")
    shapes["box"].validate({"width": 2, "height": 2}, "shape.")


def test_same_file_may_redefine_a_name_but_others_raise(shapes):
    for result in (1, 2):
        draw = define(f"def draw(canvas): return {result}", "/home/me/mine.py")
        shapes.register("mine")(draw)
        assert shapes["mine"].function(None) == result
    other = define("def draw(canvas): return 3", "/home/me/other.py")
    for name, file in (("mine", "/home/me/mine.py"), ("box", __file__)):
        with pytest.raises(ConfigError, match=f"there is a shape '{name}' already, in {file}"):
            shapes.register(name)(other)
    assert shapes["mine"].function(None) == 2


def test_notebook_cells_count_as_one_file(shapes):
    for cell in (1, 2):
        scope = {"__name__": "__main__"}
        exec(compile("def draw(canvas): ...", f"<cell {cell}>", "exec"), scope)
        shapes.register(scope["draw"])
    assert "draw" in shapes


def test_unknown_name_suggests_and_lists_known_names(shapes):
    with pytest.raises(ConfigError, match=r"there is no shape 'bx'; did you mean box\? known: box"):
        shapes["bx"]


@pytest.mark.parametrize(
    ("name", "names", "suggestion"),
    [
        ("flip", ["hflip", "random_flip"], ["random_flip"]),
        ("equalise", ["equalize", "erase"], ["equalize"]),
        ("lr", ["optimizer.lr", "data.dir"], ["optimizer.lr"]),
        ("zzz", ["equalize"], []),
    ],
)
def test_suggestions_prefer_whole_words(name, names, suggestion):
    assert registry.suggest(name, names) == suggestion


def positional(canvas, width: int, /):
    return width


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda canvas, x: None, "must be an identifier"),
        (functools.partial(positional, None), "must be a function"),
        (int, "must be a function"),
        (positional, "can be passed by name"),
    ],
)
def test_what_cannot_be_registered_raises(shapes, function, message):
    with pytest.raises(ConfigError, match=message):
        shapes.register(function)


def test_signatures_that_cannot_be_config_keys_raise():
    shapes = Registry("shape", reserved=("canvas",), required=("canvas",), taken=("name",))

    def no_canvas(width: int):
        return width

    def taken(canvas, name: str):
        return name

    def args(canvas, *sizes: int):
        return sizes

    def invalid_default(canvas, width: PositiveInt = 0):
        return width

    def mutable_default(canvas, sizes: tuple[int, ...] = [1]):
        return sizes

    for function, message in (
        (no_canvas, "must have a parameter 'canvas'"),
        (taken, "cannot have a parameter 'name'"),
        (args, "passed by name"),
        (invalid_default, "width=0 is not valid"),
        (mutable_default, "and no list"),
    ):
        with pytest.raises(ConfigError, match=message):
            shapes.register(function)
    assert len(shapes) == 0


def test_an_integer_default_of_a_number_becomes_a_float(shapes):
    @shapes.register
    def scaled(canvas, factor: PositiveFloat = 2):
        return factor

    assert type(shapes["scaled"].parameters["factor"].default) is float
