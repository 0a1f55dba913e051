"""part3.py for GPUs: the layers compute in bfloat16; parameters and statistics stay float32."""

import pathlib

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.load(str(pathlib.Path(__file__).with_name("part3.py")))
    config.dtype = "bfloat16"
    return config
