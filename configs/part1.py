"""Part 1 of the study: a small CNN, plain SGD, no augmentation. 5 epochs.

The report gives: the network's layers, batch 128, SGD at lr 0.01, StepLR(10, 0.5), seed 42, an
80/20 split. It does not give momentum and weight decay; the defaults are the usual 0.9 and 5e-4.
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
