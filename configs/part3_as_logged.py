"""part3.py as the study's log shows that it ran: OneCycleLR stepped once an epoch.

After 50 epochs the study logged a learning rate of 0.0005113. That is what OneCycleLR configured
for 50 × 313 steps (313 batches of 128 are 40,000 images) gives after 50 steps: it was stepped once
an epoch, so the run trained at a nearly constant 5e-4 with beta1 near 0.95 and never annealed.
Otherwise identical to part3.py.
"""

import pathlib

from ml_collections import ConfigDict

from jaxcifar import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.load(str(pathlib.Path(__file__).with_name("part3.py")))
    config.schedule.interval = "epoch"
    config.schedule.steps_per_epoch = 313  # OneCycleLR(epochs=num_epochs, steps_per_epoch=313)
    return config
