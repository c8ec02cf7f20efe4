"""A small network that has learned real images, for what must hold on a trained one."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

import passband.models  # noqa: F401  (registers its networks)
from passband.data import catalog

STEPS = 100
Trained = tuple[nn.Module, Tensor, Tensor]


@pytest.fixture(scope="session")
def trained() -> Trained:
    """A post-activation ResNet-8 that knows five of the built-in photographs, and 128 training images of them."""
    dataset = catalog.load("photos", "train", size=(32, 32))
    assert dataset.labels is not None
    images = torch.from_numpy(np.ascontiguousarray(dataset.images.transpose(0, 3, 1, 2))).float() / 255
    labels = torch.tensor(dataset.labels).long()
    images, labels = images[labels < 5], labels[labels < 5]
    torch.manual_seed(0)
    chance = torch.Generator().manual_seed(0)
    model = timm.create_model("postact_resnet", depth=1, width=8, activation="relu", num_classes=int(labels.max()) + 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(STEPS):
        # Slower towards the end, so that the running statistics are those of the last weights.
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / STEPS)
        some = torch.randint(0, len(images), (64,), generator=chance)
        optimizer.zero_grad()
        functional.cross_entropy(model(images[some]), labels[some]).backward()
        optimizer.step()
    shown = torch.randperm(len(images), generator=chance)[:128]
    return model.eval(), images[shown], labels[shown]
