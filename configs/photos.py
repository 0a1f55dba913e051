"""One's own photos, in one folder per class: fine-tunes an ImageNet-pretrained ResNet-18 on them.

    --config=photos --config.data.dir=path/to/folders

For some tens to thousands of photos. With many more lower num_epochs; for finer detail raise
data.image_size (the time of a step grows with its square). config.model.pretrained='' starts from
random weights, which needs no download, and many more photos or epochs.
"""

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.name = "folder"
    config.data.dir = "photos"
    config.data.image_size = 64
    config.num_epochs = 30
    config.batch_size = 16
    config.model.name = "resnet18"
    config.model.stem = "imagenet"  # torchvision's own: all of its weights fit
    config.model.pretrained = "torchvision"
    config.augment = "random_resized_crop(scale=(0.5, 1.0)) | random_flip | color_jitter(0.2, 0.2)"
    config.optimizer.name = "adamw"
    config.optimizer.lr = 4e-5  # where OneCycleLR starts: max_lr / 25
    config.optimizer.weight_decay = 0.01
    config.schedule.name = "onecycle"
    config.schedule.interval = "step"
    config.schedule.max_lr = 1e-3
    return config
