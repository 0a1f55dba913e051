"""A small CNN on CIFAR-100 with SGD, without augmentation, 5 epochs: the study's Part 1.

The report specifies the network's layers, batch 128, SGD at lr 0.01, StepLR(10, 0.5), seed 42 and
an 80/20 split. Momentum and weight decay are unspecified; the defaults are the usual 0.9 and 5e-4.
StepLR's first decay would come after epoch 10: in 5 epochs the learning rate is constant.
"""

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.num_epochs = 5
    config.batch_size = 128
    config.model.name = "simple_cnn"
    config.model.dropout = 0.5
    config.optimizer.name = "sgd"
    config.optimizer.lr = 0.01
    config.schedule.name = "step"
    config.schedule.step_size = 10
    config.schedule.gamma = 0.5
    return config
