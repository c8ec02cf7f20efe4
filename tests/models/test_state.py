"""Batch norms that take the statistics of each batch, for as long as somebody asks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passband.models.state import batch_statistics, untouched, uses_batch_statistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3), nn.Flatten(), nn.BatchNorm1d(4 * 36))
    for norm in (model[1], model[3]):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight)
    return model.eval()


def test_each_batch_is_normalized_by_itself_at_test_too() -> None:
    model, images = network(), 5 * torch.rand(6, 3, 8, 8)
    running = model(images)
    with batch_statistics(model):
        assert not model.training and uses_batch_statistics(model)
        alone, whole = model(images[:2]), model(images)
    features = model[0](images)
    mean, variance = features.mean((0, 2, 3), keepdim=True), features.var((0, 2, 3), unbiased=False, keepdim=True)
    scaled = (features - mean) / (variance + 1e-3).sqrt() * model[1].weight.view(1, -1, 1, 1)
    flat = scaled.flatten(1)
    expected = (flat - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt() * model[3].weight
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone, whole[:2], atol=0.1) and not torch.allclose(running, whole, atol=0.1)


def test_the_model_comes_back_as_it_was_also_after_an_error() -> None:
    model, images = network(), torch.rand(4, 3, 8, 8)
    before, expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}, model(images)
    with pytest.raises(KeyError), untouched(model), batch_statistics(model):
        model(images)
        raise KeyError
    assert not uses_batch_statistics(model)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(images), expected)
    with batch_statistics(nn.Linear(2, 2)) as plain:
        assert plain(torch.ones(1, 2)).shape == (1, 2)
