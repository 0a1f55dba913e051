"""ResNet-18 from scratch on CIFAR-100, with a stem for 32×32 images, 5 epochs: the study's Part 2.

The report specifies the network and its stem, batch 64, SGD at lr 0.005, CosineAnnealingLR, seed
42, an 80/20 split and no augmentation; everything else is marked below.
"""

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.num_epochs = 5
    config.batch_size = 64
    config.model.name = "resnet18"
    config.model.stem = "cifar"  # conv1 3×3, stride 1, padding 1; no max-pool
    config.model.head = "linear"
    config.optimizer.name = "sgd"
    config.optimizer.lr = 0.005
    config.optimizer.momentum = 0.9  # unspecified; the usual value
    config.optimizer.weight_decay = 5e-4  # unspecified; the usual value
    config.schedule.name = "cosine"  # T_max unspecified: the run's 5 epochs; eta_min: PyTorch's 0
    config.schedule.interval = "epoch"  # unspecified; as in PyTorch's documentation
    return config
