"""ResNet-18 for images of poor quality: AugMix with its consistency loss, 200 epochs.

AugMix (Hendrycks et al. 2019, arXiv:1912.02781) classifies an image and draws the predictions for
two augmented versions of it together. The recipe is the paper's but for the network (ResNet-18 with
the study's stem) and for the operations: as in torchvision, they include brightness, contrast,
color and sharpness, which the paper leaves out because they resemble some of the corruptions that
are scored. A step has three times the images of Part 2's.
"""

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.num_epochs = 200
    config.batch_size = 128
    config.model.name = "resnet18"
    config.augment = "random_crop(padding=4) | random_flip | augmix"
    config.loss.consistency = 12.0
    config.optimizer.name = "sgd"
    config.optimizer.lr = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.interval = "step"
    return config
