"""A first run: Part 3's recipe, scaled down and without downloads. It takes two or three minutes.

The network is Part 3's ResNet-18 at one eighth of the width, from random weights, on synthetic
images. A narrow network that trains for few steps needs less regularization: its head is linear and
there is no mixup.
"""

import pathlib

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.load(str(pathlib.Path(__file__).with_name("part3.py")))
    config.data.name = "synthetic100"
    config.data.synthetic_size = 10_000
    config.num_epochs = 8
    config.batch_size = 64
    config.model.width = 8
    config.model.pretrained = ""
    config.model.head = "linear"
    config.mixup.prob = 0.0
    return config
