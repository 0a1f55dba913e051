"""Parity: jaxcifar compared with the PyTorch and torchvision that are installed, as one page.

rows        what a row is, how differences are measured, and how rows are run
layers, networks, initialization, optimizers, schedules, transforms, policies, random_transforms,
mixing, training, by_design  the rows, by subject
run         all of them, in order
given       what both sides are given: images, weights
torch_networks  the networks in PyTorch
page        the page, in the terminal and as HTML
"""
