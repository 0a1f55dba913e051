"""The first run: Part 1's network on 15,000 drawn images, without any download. About a minute."""

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.name = "synthetic100"
    config.data.synthetic_size = 15_000
    config.num_epochs = 8
    config.batch_size = 64
    config.optimizer.lr = 0.03
    return config
