"""What a training's loss and score mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from passband.models.create import Gives
from passband.models.state import untouched


class Task(Protocol):
    """Know what the training loop does not know of what it trains.

    Attributes:
        name: As a recipe calls it.
        score: What its score is called; the log and ``metrics.json`` put ``train_`` and ``test_`` in front.
        gives: What its models give.
    """

    @property
    def name(self) -> str: ...
    @property
    def score(self) -> str: ...
    @property
    def gives(self) -> Gives: ...

    def learn(self, model: nn.Module, images: Tensor, targets: Any) -> tuple[Tensor, Any]:
        """Return a batch's mean loss, and what the model gave."""
        ...

    def tally(self, outputs: Any, images: Tensor, targets: Any) -> Tensor | None:
        """Return one score per image of what :meth:`learn` gave; None where training shows none."""
        ...

    def evaluate(self, model: nn.Module, batches: Any) -> float:
        """Return a model's score on all images; the model is left as it was found."""
        ...

    def metrics(self, model: nn.Module, batches: Any) -> dict[str, Any]:
        """Return what ``metrics.json`` says of a model and all images; the model is left as it was found."""
        ...


@dataclass(frozen=True)
class ImageTask:
    """Hold a task whose score is a mean over images.

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

    def learn(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch's mean loss, and the model's outputs."""
        outputs = self.ask(model, images)
        return self.loss(outputs, images, targets), outputs

    def tally(self, outputs: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        """Return each image's score."""
        return self.scores(outputs, images, targets)

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

    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Return a model's mean score."""
        return float(self.measure(model, batches).float().mean())

    def metrics(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
        """Return the mean score with its interval, and the number of images."""
        scores = self.measure(model, batches)
        value, low, high = self.summary(scores)
        return {f"test_{self.score}": value, "low": low, "high": high, "test_images": len(scores)}
