"""Random numbers that belong to an image."""

from __future__ import annotations

import torch

from passband.attacks.chance import image_keys, uniform


def test_stream_is_splitmix64() -> None:
    """The published test vector of SplitMix64 with state 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    found = uniform(torch.tensor([1234567]), torch.Size([4]))[0].tolist()
    assert found == [(word >> 40) / 2**24 for word in published]


def test_key_knows_pixels_and_seed_alone() -> None:
    images = torch.randint(0, 256, (5, 3, 6, 6), generator=torch.Generator().manual_seed(0)) / 255
    keys = image_keys(images, 0)
    assert torch.equal(image_keys(images[[4, 2]], 0), keys[[4, 2]])
    assert torch.equal(image_keys(images.contiguous(memory_format=torch.channels_last), 0), keys)
    assert torch.equal(image_keys(images.double() + 1e-4, 0), keys)
    assert len(set(keys.tolist()) | set(image_keys(images, 1).tolist())) == 10
    one_level = images.clone()
    one_level[0, 0, 0, 0] = (one_level[0, 0, 0, 0] * 255 + 1) % 256 / 255
    swapped = images.flip(3)
    assert image_keys(one_level, 0)[0] != keys[0] and not (image_keys(swapped, 0) == keys).any()


def test_numbers_are_uniform_and_unrelated() -> None:
    keys = image_keys(torch.arange(64).view(64, 1, 1, 1) / 255, 0)
    numbers = uniform(keys, torch.Size([1024]))
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
    counts = torch.histc(numbers, 16, 0, 1)
    expected = numbers.numel() / 16
    # Chi-square with 15 degrees of freedom: above 37.7 once in a thousand.
    assert float(((counts - expected) ** 2 / expected).sum()) < 37.7
    # Correlations of 64 unrelated streams of 1024: six standard deviations.
    correlations = torch.corrcoef(numbers) - torch.eye(64)
    assert float(correlations.abs().max()) < 6 / 1024**0.5
