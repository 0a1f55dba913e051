"""The study's recipes in idiomatic PyTorch: the baseline.

python scripts/pytorch_baseline.py --part=1|2|3 --data=DIR|FILE.npz [--epochs=N] [--seed=N]
                                   [--workers=N] [--limit=N]

The data is an image folder (train/<class>/*, test/<class>/*), or an .npz with uint8 images and
labels: train_images, train_labels, test_images, test_labels. Parts 2 and 3 need torchvision. On a
GPU: channels_last, bfloat16 autocast, torch.compile, fused optimizers, cuDNN's own benchmark.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision_compat import import_torchvision

from jaxcifar import optional

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
KINDS = ("images", "labels")


class Images(Dataset):
    """uint8 images [N, 32, 32, 3] and labels; each image is transformed on access."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable):
        """Keeps the arrays; `transform` maps a uint8 HWC array to a float tensor CHW."""
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[row]), int(self.labels[row])


class SimpleCNN(nn.Module):
    """The study's first network."""

    def __init__(self, num_classes: int):
        """Creates the layers, with PyTorch's default initialization."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.fc1 = nn.Linear(2048, 512)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(512, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = functional.max_pool2d(functional.relu(conv(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc2(self.dropout(x))


def make_resnet18(num_classes: int, *, mlp_head: bool) -> nn.Module:
    """Returns torchvision's ResNet-18 with the CIFAR stem."""
    model = import_torchvision().models.resnet18(weights=None)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    model.fc = nn.Linear(512, num_classes)
    if mlp_head:
        model.fc = nn.Sequential(
            *(nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, 512)),
            *(nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 256)),
            *(nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, num_classes)),
        )
    return model


class Recipe(NamedTuple):
    """One part of the study; if `per_step` the schedule is stepped per batch, else per epoch."""

    model: nn.Module
    network: Callable  # the model as it is called: compiled on a GPU
    batch_size: int
    epochs: int
    optimizer: torch.optim.Optimizer
    make_schedule: Callable  # (optimizer, epochs, steps per epoch) -> scheduler
    per_step: bool
    transform: Callable
    mixup: bool


def make_recipe(
    part: int, num_classes: int, device: torch.device, compile_mode: str | None = None
) -> Recipe:
    """Returns the recipe of part 1, 2 or 3, its model on `device`; `compile_mode` is the `mode` of
    torch.compile on a GPU.
    """
    schedules = torch.optim.lr_scheduler
    is_simple = part == 1
    model = SimpleCNN(num_classes) if is_simple else make_resnet18(num_classes, mlp_head=part == 3)
    model = model.to(device, memory_format=torch.channels_last)
    network = torch.compile(model, mode=compile_mode) if device.type == "cuda" else model
    torch.backends.cudnn.benchmark = True
    fused = {"fused": True} if device.type == "cuda" else {}
    if part == 3:
        optimizer = torch.optim.AdamW(model.parameters(), 5e-4, weight_decay=5e-4, **fused)
    else:
        lr = 0.01 if is_simple else 0.005
        optimizer = torch.optim.SGD(
            model.parameters(), lr, momentum=0.9, weight_decay=5e-4, **fused
        )
    if is_simple:
        plan = (128, 5, lambda o, epochs, steps: schedules.StepLR(o, 10, 0.5), False)
    elif part == 2:
        plan = (64, 5, lambda o, epochs, steps: schedules.CosineAnnealingLR(o, epochs), False)
    else:
        plan = (
            128,
            50,
            lambda o, epochs, steps: schedules.OneCycleLR(
                o, 5e-3, epochs=epochs, steps_per_epoch=steps, pct_start=0.1, div_factor=10
            ),
            True,
        )
    batch_size, epochs, make_schedule, per_step = plan
    transform = augment_transform() if part == 3 else plain_transform
    return Recipe(
        *(model, network, batch_size, epochs, optimizer, make_schedule, per_step, transform),
        mixup=part == 3,
    )


def plain_transform(image: np.ndarray) -> torch.Tensor:
    """Returns the normalized image, float32 [3, 32, 32]."""
    tensor = torch.from_numpy(image).permute(2, 0, 1).float().div_(255)
    return tensor.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])


def augment_transform() -> Callable:
    """Returns part 3's augmentation and normalization, with torchvision's transforms on PIL
    images, as in its documentation.
    """
    v2 = import_torchvision().transforms.v2
    return v2.Compose(
        [
            v2.ToPILImage(),
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(2, 7),
            v2.ColorJitter(0.2, 0.2, 0.2, 0.1),
            v2.RandomRotation(10),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            v2.RandomErasing(0.05),
        ]
    )


def mixup(
    images: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, Callable]:
    """Returns images, mixed with probability 0.5, and the loss as a function of their logits."""
    if rng.random() >= 0.5:
        return images, lambda logits: functional.cross_entropy(logits, labels)
    lam = float(rng.beta(1.0, 1.0))
    permutation = torch.randperm(len(images), device=images.device)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        first = functional.cross_entropy(logits, labels)
        return lam * first + (1 - lam) * functional.cross_entropy(logits, labels[permutation])

    return lam * images + (1 - lam) * images[permutation], loss


def make_train_step(recipe: Recipe, device: torch.device, seed: int = 42) -> Callable:
    """Returns fn(images float [B, 3, 32, 32], labels [B]) -> (loss, logits), both detached."""
    rng = np.random.default_rng(seed)

    def step(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        recipe.model.train()
        if recipe.mixup:
            images, loss_fn = mixup(images, labels, rng)
        else:
            loss_fn = lambda logits: functional.cross_entropy(logits, labels)  # noqa: E731
        recipe.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = recipe.network(images)
            loss = loss_fn(logits)
        loss.backward()
        recipe.optimizer.step()
        return loss.detach(), logits.detach()

    return step


@torch.inference_mode()
def evaluate(recipe: Recipe, batches: Iterator, device: torch.device) -> tuple[float, float]:
    """Returns (mean loss, accuracy in percent) over batches of (images, labels)."""
    recipe.model.eval()
    loss = correct = count = 0.0
    for images, labels in batches:
        images, labels = to_device(images, device), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = recipe.network(images).float()
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return loss / count, 100 * correct / count


def to_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Returns the images on the device, channels last."""
    return images.to(device, memory_format=torch.channels_last, non_blocking=True)


def load_data(path: str) -> list[np.ndarray]:
    """Returns train images, train labels, test images, test labels."""
    file = pathlib.Path(path)
    if file.suffix == ".npz":
        arrays = np.load(file)
        return [arrays[f"{split}_{kind}"] for split in ("train", "test") for kind in KINDS]
    from jaxcifar.data import folder

    parts = folder.load(path)
    if parts.test is None or parts.val is not None:
        raise ValueError("it must have the folders train and test, and no val")
    return [getattr(part, kind) for part in (parts.train, parts.test) for kind in KINDS]


def loaders(
    recipe: Recipe, arrays: list[np.ndarray], *, seed: int, workers: int, limit: int = 0
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of the training part, the validation part (20%) and the test set."""
    order = np.random.default_rng(seed).permutation(len(arrays[1]))
    num_train = int(0.8 * len(order))
    rows = order[:num_train][: limit or None], order[num_train:]
    common = {"num_workers": workers, "persistent_workers": workers > 0}
    common["pin_memory"] = torch.cuda.is_available()
    return (
        DataLoader(
            Images(arrays[0][rows[0]], arrays[1][rows[0]], recipe.transform),
            recipe.batch_size,
            shuffle=True,
            **common,
        ),
        DataLoader(Images(arrays[0][rows[1]], arrays[1][rows[1]], plain_transform), 1000, **common),
        DataLoader(Images(arrays[2], arrays[3], plain_transform), 1000, **common),
    )


def train(
    part: int,
    arrays: list[np.ndarray],
    *,
    epochs: int = 0,
    seed: int = 42,
    workers: int = 2,
    limit: int = 0,
) -> dict:
    """Trains one part and returns its records; the best epoch's model is scored on the test set."""
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = make_recipe(part, int(arrays[1].max()) + 1, device)
    epochs = epochs or recipe.epochs
    train_loader, val_loader, test_loader = loaders(
        recipe, arrays, seed=seed, workers=workers, limit=limit
    )
    scheduler = recipe.make_schedule(recipe.optimizer, epochs, len(train_loader))
    step = make_train_step(recipe, device, seed)
    records, best = [], (-1.0, None)
    for epoch in range(epochs):
        started, loss_sum, correct, count = time.perf_counter(), 0.0, 0.0, 0
        for images, labels in train_loader:
            images, labels = to_device(images, device), labels.to(device, non_blocking=True)
            loss, logits = step(images, labels)
            loss_sum += loss * len(labels)
            correct += (logits.argmax(1) == labels).sum()
            count += len(labels)
            if recipe.per_step:
                scheduler.step()
        if not recipe.per_step:
            scheduler.step()
        loss, accuracy = float(loss_sum) / count, 100 * float(correct) / count
        train_seconds = time.perf_counter() - started
        val_loss, val_acc = evaluate(recipe, val_loader, device)
        if val_acc > best[0]:
            best = (val_acc, {k: v.clone() for k, v in recipe.model.state_dict().items()})
        record = {"epoch": epoch + 1, "train_loss": loss, "train_acc": accuracy}
        record |= {"val_loss": val_loss, "val_acc": val_acc, "train_seconds": train_seconds}
        record["seconds"] = time.perf_counter() - started
        records.append(record)
        print(json.dumps(record), flush=True)
    recipe.model.load_state_dict(best[1])
    test_loss, test_acc = evaluate(recipe, test_loader, device)
    return {"records": records, "test_loss": test_loss, "test_acc": test_acc}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", type=int, choices=(1, 2, 3), required=True)
    parser.add_argument("--data", required=True, help="an image folder, or an .npz of arrays")
    parser.add_argument("--epochs", type=int, default=0, help="0: the part's own")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--workers", type=int, default=2, help="DataLoader workers")
    parser.add_argument("--limit", type=int, default=0, help="number of training images (0: all)")
    args = parser.parse_args()
    for name in ("epochs", "seed", "workers", "limit"):
        if getattr(args, name) < 0:
            parser.error(f"--{name}={getattr(args, name)} must be 0 or more")
    try:
        arrays = load_data(args.data)
    except (OSError, ValueError, KeyError) as error:  # ConfigError is a ValueError
        parser.error(f"--data={args.data!r} cannot be used: {error}")
    try:
        summary = train(
            args.part,
            arrays,
            epochs=args.epochs,
            seed=args.seed,
            workers=args.workers,
            limit=args.limit,
        )
    except ImportError as error:
        remedy = optional.install("torch")
        print(f"error: part {args.part} needs {error.name}: {remedy}", file=sys.stderr)
        sys.exit(2)
    print(f"test accuracy {summary['test_acc']:.2f}%  loss {summary['test_loss']:.4f}")


if __name__ == "__main__":
    main()
