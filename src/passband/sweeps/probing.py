"""What `passband probe` does, step by step, for a command line or a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from passband.core.answer import Answer
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.options import defaults, split_assignments
from passband.core.results import Result
from passband.core.store import file_name, lock, make_folder
from passband.data.dataset import Batches
from passband.data.scenes import SceneBatches
from passband.models.detector import Detector
from passband.probes import PROBES
from passband.reports import page
from passband.sweeps import sharding
from passband.sweeps.answers import describe, measure
from passband.sweeps.resolve import (
    DetectorSubject,
    Subject,
    detector_subject,
    detects,
    images_for,
    scenes_for,
    subject,
)
from passband.sweeps.sharding import Share
from passband.train.device import torch_device

USUAL = ("bands", "robustness", "kernels", "envelope")
USUAL_OF_DETECTORS = ("detection",)


def usual_of(source: str | nn.Module | Subject | DetectorSubject) -> tuple[str, ...]:
    """Return the probes that are run where nobody chose: of detectors another one than of classifiers."""
    if isinstance(source, Subject | DetectorSubject):
        source = source.model
    return USUAL_OF_DETECTORS if detects(source) else USUAL


def plan(
    only: str | None, settings: Sequence[str], seed: int = 0, usual: Sequence[str] = USUAL
) -> dict[str, dict[str, Any]]:
    """Return the probes to run with their options as given, ``["bands.radii=4,8"]`` sorted to their probes.

    Raises:
        PassbandError: for an unknown probe, or an option of a probe that is not run.
    """
    names = [name.strip() for name in only.split(",") if name.strip()] if only is not None else list(usual)
    if not names:
        raise PassbandError("--only takes probes such as bands,robustness; got none")
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        if "seed" in defaults(PROBES[name]):
            options[name]["seed"] = seed
    for path, value in split_assignments(settings).items():
        probe, dot, option = path.partition(".")
        if not dot:
            raise PassbandError(f"--set takes PROBE.OPTION=VALUE, such as bands.radii=4,8; got '{path}={value}'")
        if probe not in options:
            raise unknown("probe of this command", probe, names)
        options[probe][option] = value
    return options


def folder_name(model: str, data: str) -> str:
    """Return a file name for an answer about this model and this data: ``resnet18-fashion-mnist``."""
    kind, colon, path = data.partition(":")
    return file_name(Path(model).name, f"{kind}{colon}{Path(path).name}" if colon else data)


def load(source: str | nn.Module, **options: Any) -> Subject:
    """Find a model, as :func:`passband.sweeps.resolve.subject` does; on a GPU where there is one."""
    return subject(source, **{"device": torch_device("auto"), **options})


def prepared(
    source: str | nn.Module | Subject | DetectorSubject,
    data: str,
    *,
    truth: str = "label",
    limit: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    device: str | None = None,
    data_dir: Path | None = None,
    skip_bad: bool = False,
    **options: Any,
) -> tuple[Subject | DetectorSubject, Batches | SceneBatches]:
    """Find a classifier or a detector, and the images that it is asked about.

    Args:
        source: What names it, or holds it.
        data: A set's name: with boxes for a detector.
        truth: As :func:`probe`; a detector is compared with the boxes.
        limit: As :func:`probe`.
        seed: As :func:`probe`.
        batch: Images in a batch; 128, of scenes 8, when None.
        device: Where work is done; a GPU where there is one, when None.
        data_dir: As :func:`probe`.
        skip_bad: Leave out images that cannot be read, and say how many.
        **options: ``weights``, ``pretrained``, ``size``, and of a classifier ``mean`` and ``std``.

    Raises:
        PassbandError: for whatever the user can mend.
    """
    options = {name: value for name, value in options.items() if value is not None}
    on = _device_of(source) if device is None else device
    taken: dict[str, Any] = {"limit": limit, "seed": seed, "data_dir": data_dir, "skip_bad": skip_bad}
    asked: Subject | DetectorSubject
    if isinstance(source, Subject | DetectorSubject):
        asked = source
        on = _device_of(source)
    elif not detects(source):
        asked = subject(source, **{"device": on, **options})
    else:
        strange = [*sorted({"mean", "std"} & set(options)), *(["truth"] if truth != "label" else [])]
        if strange:
            raise PassbandError(
                f"{source} is a detector, which normalizes inside and is compared with boxes; leave out --{strange[0]}"
            )
        assert isinstance(source, str | Detector)
        asked = detector_subject(source, **{"device": on, **options})
    if isinstance(asked, Subject):
        return asked, images_for(asked, data, truth=truth, batch=batch or 128, device=on, **taken)
    return asked, scenes_for(data, batch=batch or 8, device=on, **taken)


def _device_of(source: str | nn.Module | Subject | DetectorSubject) -> str:
    """Return where a model lies; one that is yet to be made goes to a GPU where there is one."""
    if isinstance(source, str):
        return torch_device("auto")
    parameters = (source if isinstance(source, nn.Module) else source.model).parameters()
    return str(next((parameter.device for parameter in parameters), "cpu"))


@contextmanager
def sharing(
    source: str | nn.Module | Subject | DetectorSubject,
    data: str,
    *,
    devices: int = 1,
    threads: int = 0,
    device: str | None = None,
    **options: Any,
) -> Iterator[tuple[Subject | DetectorSubject, Batches | SceneBatches, Share | None]]:
    """Do as :func:`prepared`, and lend out workers beside, which share the probes' work.

    Args:
        source: As there.
        data: As there.
        devices: How many workers; 1 is this process alone.
        threads: CPU threads of each; 0 shares torch's choice among them.
        device: As there.
        **options: As there.

    Raises:
        PassbandError: for whatever the user can mend.
    """
    on = _device_of(source) if device is None else device
    if devices > 1 and not isinstance(source, str):
        on = on.partition(":")[0]  # it lies on one of them
    where = sharding.places(on, devices, threads)
    with sharding.threads_set(where.threads):
        asked, batches = prepared(source, data, device=device, **options)
        again = partial(prepared_there, source, data, **options)
        with sharding.crew(again, where, (asked, batches)) as share:
            yield asked, batches, share


def prepared_there(
    source: str | nn.Module | Subject | DetectorSubject, data: str, *, device: str, **options: Any
) -> tuple[Subject | DetectorSubject, Batches | SceneBatches]:
    """Do as :func:`prepared` in a worker, where a model that was sent is its own: it is put on the worker's device."""
    if isinstance(source, nn.Module):
        source.to(device)
    elif not isinstance(source, str):
        source.model.to(device)
    return prepared(source, data, device=device, **options)


def ask(
    asked: Subject | DetectorSubject,
    batches: Batches | SceneBatches,
    planned: Mapping[str, Mapping[str, Any]],
    *,
    folder: Path,
    command: str,
    precision: str = "float32",
    usual: bool = False,
    share: Share | None = None,
) -> Iterator[tuple[Result, ...]]:
    """Run the planned probes one by one; those whose answer is kept in ``folder`` come at once.

    When the last one is through, the whole answer and its page lie in ``folder``.

    Args:
        asked: The model.
        batches: The images.
        planned: Probes and their options.
        folder: Of the answer.
        command: What makes the answer again.
        precision: ``"float32"`` or ``"bf16"``, of the model alone.
        usual: Whether the probes are the usual ones, which nobody chose: those that do not apply to the model are
            left out then, and the answer says so.
        share: As :func:`sharing` lends it; None does all work in this process.
    """
    make_folder(folder)
    found: list[Result] = []
    head = {"title": f"{asked.name} on {batches.dataset.name}", "command": command, **describe(asked, batches)}
    for name, options in planned.items():
        try:
            results = measure(
                asked, batches, name, options, folder=folder / "kept", command=command, precision=precision, share=share
            )
        except NotApplicable as reason:
            if not usual:
                raise
            head["notes"] = [*head["notes"], f"{name} was left out: {reason}"]
            continue
        found += results
        yield results
    with lock(folder, wait=True):
        Answer(head, found).save(folder)
        page.write(folder)


def probe(
    model: str | nn.Module | Subject | DetectorSubject,
    data: str,
    *,
    only: str | None = None,
    options: Sequence[str] = (),
    out: Path | str | None = None,
    truth: str = "label",
    limit: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    data_dir: Path | None = None,
    devices: int = 1,
    threads: int = 0,
) -> Answer:
    """Probe a model on images and write the report.

    Args:
        model: A name as the command line takes it, a module, or what :func:`load` gave; a detector too.
        data: A set's name, ``"folder:PATH"`` or ``"images:PATH"``.
        only: Probes to run, such as ``"bands,robustness"``; None runs the four usual ones, of a detector ``detection``.
        options: Such as ``["bands.radii=4,8"]``.
        out: Folder of the answer and its ``report.html``; ``passband-out/MODEL-DATA`` when None.
        truth: ``"label"``, or ``"prediction"`` for agreement with the prediction on the untouched image.
        limit: First so many images of one fixed seeded permutation; None takes all.
        seed: Of that permutation and of the attacks' random starts.
        batch: Images per batch, 128, of scenes 8, when None; results do not depend on it.
        data_dir: Folder of all data sets.
        devices: Processes that share the images: a GPU each, or their share of the CPU's threads. Numbers are those of
            one process with as many threads as each of them; a module goes to them by pickle.
        threads: CPU threads of each; 0 shares torch's choice among them.

    Raises:
        PassbandError: for whatever the user can mend.
    """
    planned = plan(only, options, seed, usual_of(model))
    given = {"only": only, "options": list(options) or None, "truth": truth, "limit": limit, "seed": seed}
    usual = {"truth": "label", "seed": 0}
    words = [f"{name}={value!r}" for name, value in given.items() if value not in (None, usual.get(name))]
    taken: dict[str, Any] = {"truth": truth, "data_dir": data_dir, "limit": limit, "seed": seed, "batch": batch}
    with sharing(model, data, devices=devices, threads=threads, **taken) as (asked, batches, share):
        folder = Path(out) if out is not None else Path("passband-out") / folder_name(asked.name, data)
        who = repr(model) if isinstance(model, str) else asked.name
        command = f"passband.probe({', '.join([who, repr(data), *words])})"
        for _ in ask(asked, batches, planned, folder=folder, command=command, usual=only is None, share=share):
            pass
    return Answer.load(folder)
