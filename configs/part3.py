"""ImageNet-pretrained ResNet-18 on CIFAR-100 with AdamW, OneCycleLR, augmentation and mixup,
50 epochs: the study's Part 3.

The report specifies the network, its stem and weights, the kinds of layers in its head with
dropouts 0.5, 0.3, 0.2, batch 128, AdamW at lr 5e-4 with weight decay 5e-4, OneCycleLR with a peak
of 10 times lr and 10% warm-up, the list of augmentations, mixup on half of the batches, seed 42 and
an 80/20 split; everything else is marked below.

OneCycleLR is stepped once a batch here, as intended: the learning rate ends at 5e-8. The study's
own run stepped it once an epoch: see part3_as_logged.py.
"""

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.num_epochs = 50
    config.batch_size = 128
    config.model.name = "resnet18"
    config.model.pretrained = "torchvision"
    config.model.stem = "cifar"  # conv1 3×3, stride 1, padding 1, reinitialized; no max-pool
    config.model.head = "mlp"  # BatchNorm, dropout and linear layers, ReLU between
    config.model.head_hidden = (512, 256)  # unspecified
    config.model.head_dropout = (0.5, 0.3, 0.2)
    config.augment = (  # order as listed; erasing last, with a fill of the data's mean
        "random_crop(padding=4) | random_flip | randaugment(2, 7)"  # RandomCrop(32, padding=4)
        " | color_jitter(0.2, 0.2, 0.2, 0.1)"  # strengths unspecified
        " | random_rotation(10) | random_erasing(0.05)"
    )
    config.mixup.prob = 0.5
    config.mixup.alpha = 1.0  # unspecified
    config.optimizer.name = "adamw"
    config.optimizer.lr = 5e-4
    config.optimizer.weight_decay = 5e-4
    config.optimizer.b2 = 0.999  # unspecified; PyTorch's default. The schedule cycles beta1
    config.optimizer.eps = 1e-8  # unspecified; PyTorch's default
    config.schedule.name = "onecycle"
    config.schedule.interval = "step"
    config.schedule.max_lr = 10 * config.optimizer.lr
    config.schedule.pct_start = 0.1
    config.schedule.div_factor = 10.0  # unspecified; so the schedule starts at lr, as logged
    config.schedule.final_div_factor = 1e4  # unspecified; PyTorch's default
    # unspecified; PyTorch's default: beta1 from 0.95 to 0.85 and back
    config.schedule.cycle_momentum = True
    config.schedule.base_momentum = 0.85
    config.schedule.max_momentum = 0.95
    return config
