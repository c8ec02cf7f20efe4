"""What a training's loss and score mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from passband.models.create import Gives
from passband.models.state import untouched


@dataclass(frozen=True)
class Task:
    """Hold what the training loop does not know of what it trains.

    Attributes:
        name: As a recipe calls it.
        score: What its score is called; the log and ``metrics.json`` put ``train_`` and ``test_`` in front.
        gives: What its models give.
        ask: Puts the task to a model: model and images [B, C, H, W] in [0, 1] to the model's outputs.
        check: Outputs and images to the outputs, refusing what is not an answer to the task.
        loss: Outputs, images and targets [B] to the batch's mean loss.
        scores: Outputs, images and targets to one score per image, [B].
        summary: Scores [N] to their mean and its 95% interval, where it has one.
    """

    name: str
    score: str
    gives: Gives
    ask: Callable[[nn.Module, Tensor], Any]
    check: Callable[[Any, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    scores: Callable[[Tensor, Tensor, Tensor], Tensor]
    summary: Callable[[Tensor], tuple[float, float | None, float | None]]

    def measure(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Return a model's score on each image, [N], on the CPU; the model is left as it was found.

        Raises:
            PassbandError: when the model's outputs are no answer to the task.
        """
        found = []
        with untouched(model), torch.no_grad():
            for images, targets in batches:
                outputs = self.check(self.ask(model, images), images)
                found.append(self.scores(outputs, images, targets).cpu())
        return torch.cat(found)

    def metrics(self, scores: Tensor) -> dict[str, Any]:
        """Return what ``metrics.json`` says of the test images' scores."""
        value, low, high = self.summary(scores)
        return {f"test_{self.score}": value, "low": low, "high": high, "test_images": len(scores)}
