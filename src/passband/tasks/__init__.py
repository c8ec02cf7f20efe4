"""Tasks: what a training's loss and score mean, by the name that a recipe gives."""

from passband.tasks.classification import CLASSIFICATION as CLASSIFICATION
from passband.tasks.detection import DETECTION as DETECTION
from passband.tasks.task import Task as Task
from passband.tasks.unshuffle import UNSHUFFLE as UNSHUFFLE

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, UNSHUFFLE, DETECTION)}
"""The values of a recipe's ``task``."""
