"""A model as an ONNX file that answers as the model does."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.store import write_atomic
from passband.models.fold import Folded, fold, frozen_copy
from passband.models.outputs import check_logits
from passband.models.wrap import Classifier
from passband.weights.learn import bake

_IMAGES = 32
_AGREE = 0.9
"""Images of noise may lie on the border between two classes, where rounding decides; an error shows in more."""


@dataclass(frozen=True)
class Exported:
    """Say what was written, and how it answers in onnxruntime beside the model, on images of noise.

    Attributes:
        path: The file.
        images: How many were asked about.
        agree: How many got the same class.
        difference: Largest difference of logits, in parts of the range of the model's.
        folded: What was folded before; None where nothing was to be.
    """

    path: Path
    images: int
    agree: int
    difference: float
    folded: Folded | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        folded = "" if self.folded is None else f"; {self.folded}"
        return (
            f"{self.path}: onnxruntime gives the same class for {self.agree} of {self.images} images of noise, logits "
            f"differ by at most {self.difference:.1g} of their range{folded}"
        )


def export_onnx(model: Classifier, path: Path, *, folding: bool = False) -> Exported:
    """Write a classifier as ONNX: ``images`` [batch, channel, height, width] in [0, 1] in, ``logits`` out.

    Normalization is inside, the batch is free, and all that was computed from other weights is put in place. Of a
    quantized model the file holds the quantized weights in float32, and each quantizer of activations as division,
    cut, rounding and product: ONNX has no quantizing operator of 2 bits that runtimes compute. Sums are in another
    order there than here, so that an activation half way between two levels may go to the other one.

    Args:
        model: Left as it was found.
        path: Ends with ``.onnx``.
        folding: Whether to write the model's form for evaluation (:func:`passband.models.fold.fold`): the same answers
            to rounding from fewer operators.

    Raises:
        PassbandError: when the extra ``export`` is not installed, the file is not called so, or the exporter cannot
            take the model, it gives no logits, or the file answers otherwise.
    """
    check_export(path)
    import onnxruntime

    network = bake(frozen_copy(model)).cpu()
    spec = model.spec
    images = torch.rand(_IMAGES, spec.channels, *spec.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = check_logits(network(images), len(images)).numpy()
    folded = None
    if folding:
        network, folded = fold(network)
    content = _exported(network, images)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    spread = float(np.ptp(expected)) or 1.0
    agree = int((found.argmax(1) == expected.argmax(1)).sum())
    if agree < _AGREE * len(images):
        raise PassbandError(
            f"onnxruntime gives another class than the model for {len(images) - agree} of {len(images)} images of "
            "noise, so nothing is written; please report the model"
        )
    write_atomic(path, content)
    return Exported(path, len(images), agree, float(np.abs(found - expected).max()) / spread, folded)


def check_export(path: Path) -> None:
    """Refuse a file or an installation with which no export can be made, before any work.

    Raises:
        PassbandError: when the extra ``export`` is not installed, or the file is not called ``.onnx``.
    """
    if path.suffix != ".onnx":
        raise PassbandError(f"an ONNX file's name ends with .onnx; got {path}")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise PassbandError(
            f"the export to ONNX needs {error.name}, which is not installed: pip install 'passband[export]'"
        ) from None


def _exported(network: nn.Module, images: Tensor) -> bytes:
    # The exporter speaks of what it does on both ways; what fails is raised.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (images,), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise PassbandError(f"torch cannot export this model to ONNX ({line})") from error
    finally:
        logging.disable(before)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
