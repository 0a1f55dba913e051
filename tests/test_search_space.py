import itertools

import pytest

from jaxcifar import config as config_lib
from jaxcifar.spec import ConfigError
from jaxcifar.sweep import spaces


@pytest.fixture
def config():
    return config_lib.default()


class FakeTrial:
    """Takes the lowest value, or the last choice."""

    def suggest_float(self, name, low, high, *, log):
        return low

    def suggest_int(self, name, low, high, *, log):
        return low

    def suggest_categorical(self, name, choices):
        return choices[-1]


@pytest.mark.parametrize(
    ("argument", "value", "is_log"),
    [
        ("optimizer.lr=log(1e-4, 1e-1)", 1e-4, True),
        ("optimizer.lr = log( 0.0001 , 1 )", 1e-4, True),
        ("model.dropout=uniform(0, 0.6)", 0.0, False),
        ("batch_size=int(16, 256)", 16, False),
        ("batch_size=log(16, 256)", 16, True),
        ("optimizer.name=choice('sgd', 'adamw')", "adamw", False),
        ("optimizer.name=choice(sgd, adamw)", "adamw", False),
        ("optimizer.nesterov=choice(False, True)", "True", False),
        ("data.mean=choice((0.5071, 0.4867, 0.4408), (0.5, 0.5, 0.5))", None, False),
        ("augment=choice('', 'random_flip | random_crop(32, padding=4)')", None, False),
        ("data.limit=choice(0, 100)", "100", False),
    ],
)
def test_reads_spaces_and_suggests_valid_values(config, argument, value, is_log):
    ((key, space),) = spaces.parse([argument], config).items()
    assert space.is_log is is_log
    suggested = space.suggest(FakeTrial())
    if value is not None:
        assert suggested == value
        assert type(suggested) is type(value)
    changed = spaces.with_values(config, {key: suggested})
    config_lib.validate(changed)
    assert spaces.value_of(changed, key) != spaces.value_of(config, key)
    assert spaces.value_of(spaces.with_values(config, {key: space.locate(config)}), key) == (
        spaces.value_of(config, key)
    )


def test_spaces_that_mean_the_same_have_the_same_text(config):
    texts = [
        spaces.parse([f"optimizer.lr={text}"], config)["optimizer.lr"].text
        for text in ("log(1e-4, 0.1)", " log(0.0001,1e-1) ")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optimizer.lr", "is not KEY=SPACE"),
        ("optimizer.lr=0.1", "write log(a, b), uniform(a, b), int(a, b) or choice(x, y, ...)"),
        ("optimizer.lr=lognormal(0, 1)", "is not a space"),
        ("optimizer.lr=log(1e-4, ", "is not a space"),
        ("optimizer.lr=__import__('os').system('true')", "is not a space"),
        ("optimizer.lr=log(1e-4, open('x'))", "open('x') is not a literal value"),
        ("optimizer.lr=choice(2 ** 999, 1)", "is not a literal value"),
        ("optimizer.lr=log(a=1e-4, b=1e-1)", "without names"),
        ("optimizer.lr=log(0, 1e-1)", "a > 0"),
        ("optimizer.lr=log(1e-1, 1e-4)", "a < b"),
        ("optimizer.lr=uniform(1e-4)", "two numbers"),
        ("optimizer.lr=uniform('a', 'b')", "two numbers"),
        ("optimizer.lr=uniform(True, 2)", "two numbers"),
        (
            "optimizer.lr=uniform(-1, 1)",
            "optimizer.lr=-1.0 is not valid: it must be a number above",
        ),
        ("optimizer.lr=uniform(0.001, 1e999)", "optimizer.lr='inf' is not valid"),
        ("optimizer.lrr=uniform(0, 1)", "did you mean optimizer.lr"),
        ("config_file=choice('a', 'b')", "config_file does not exist"),
        ("optimizer=choice(sgd, adamw)", "is a group"),
        ("num_epochs=uniform(1, 10)", "is an integer; write int(1, 10)"),
        ("num_epochs=int(1.5, 10)", "two integers"),
        ("batch_size=log(0.5, 10)", "batch_size"),
        ("optimizer.name=choice()", "one value or more"),
        ("optimizer.name=choice(sgd, 'sgd')", "only once"),
        ("optimizer.name=choice(sgd, sdg)", "must be one of 'sgd'"),
        ("optimizer.name=int(1, 2)", "'sgd'"),
        ("model.dropout=uniform(0, 1.5)", "model.dropout"),
        ("augment=choice('', 'flip')", "did you mean random_flip?"),
        ("optimizer.lr=log(0.1, 1)", "the config's optimizer.lr is 0.01, which is not in"),
        ("batch_size=choice(32, 64)", "widen the space, or set a value in it with --config.batch"),
        ("schedule.max_lr=log(1e-3, 1)", "is unset"),
        ("schedule.name=choice(constant, onecycle)", "max_lr is unset"),
    ],
)
def test_invalid_spaces_raise_one_line(config, argument, message):
    with pytest.raises(ConfigError) as caught:
        spaces.parse([argument], config)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_no_space_and_two_of_a_key_raise(config):
    with pytest.raises(ConfigError, match="no spaces to search"):
        spaces.parse([], config)
    with pytest.raises(ConfigError, match=r"optimizer\.lr has two spaces"):
        spaces.parse(["optimizer.lr=log(1e-3, 1)", "optimizer.lr=uniform(0.1, 1)"], config)


def test_a_choice_may_be_valid_only_beside_another(config):
    alone = "model.stem=choice('cifar', 'imagenet')"
    with pytest.raises(ConfigError, match=r"no effect with model\.name='simple_cnn'"):
        spaces.parse([alone], config)
    parsed = spaces.parse([alone, "model.name=choice(simple_cnn, resnet18)"], config)
    combinations = itertools.product(*(space.choices for space in parsed.values()))
    valid = [
        spaces.is_valid(spaces.with_values(config, dict(zip(parsed, values, strict=True))))
        for values in combinations
    ]
    assert sorted(valid) == [False, True, True, True]
