"""Parity: jaxcifar compared with the PyTorch and torchvision that are installed, as one page.

rows        what a row is, how differences are measured, and how rows are run
layers, networks, initialization, optimizers, schedules, transforms, random_transforms, mixing,
training    the rows, by subject
given       what both sides are given: images, weights
torch_networks  the networks in PyTorch
page        the page, in the terminal and as HTML
"""
