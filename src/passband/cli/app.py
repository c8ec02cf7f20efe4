"""The commands. Each imports what it needs when it runs, so that ``--help`` loads no torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain help comes in half the time
    help="Show which image frequencies a vision model runs on, and train models that run on the right ones.",
    epilog="--debug shows the traceback of an error. Exit code: 0 all well, 1 a judged claim fails, 2 you can mend it.",
)

Settings = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE; may be given again.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of all data sets; else $PASSBAND_DATA, else the cache.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the answer.")]


_arguments: list[str] = []


def run(arguments: list[str]) -> object:
    """Run one command line and return its exit code; what Typer says of a mistake comes as an exception."""
    _arguments[:] = arguments
    return app(arguments, standalone_mode=False)


def _command(one: str = "--all", folder: Path | None = None) -> str:
    """Return the command as it was given, or for ``one`` of all experiments, for results to say what makes them."""
    words = [one if word == "--all" else word for word in _arguments]
    if "--all" in _arguments and "--out" in words:
        words[words.index("--out") + 1] = str(folder)
    return shlex.join(["passband", *words])


@app.command(short_help="Train, probe and report three networks.")
def quickstart(
    out: Out = None,
    device: Device = "auto",
) -> int:
    """Train three small networks on the built-in photographs, probe them, and write a report."""
    from passband.cli import reproducing

    folder = out or Path("passband-out/quickstart")
    return reproducing.one("quickstart", reproducing.Wanted("smoke", device=device), folder, _command())


@app.command(short_help="Show which frequencies a model runs on.")
def probe(
    model: Annotated[str, typer.Argument(help="A timm name, torchvision:NAME, rtdetr:NAME, a run, file.py:factory.")],
    data: Annotated[str, typer.Option(help="A set's name, folder:PATH or images:PATH.")],
    only: Annotated[str | None, typer.Option(help="Probes to run, such as bands,robustness; else the four.")] = None,
    settings: Settings = None,
    truth: Annotated[str, typer.Option(help="label, or prediction: agreement with the untouched image's.")] = "label",
    weights: Annotated[Path | None, typer.Option(help="A safetensors or torch state dict for the model.")] = None,
    pretrained: Annotated[bool, typer.Option(help="Whether a library's model comes with its trained weights.")] = True,
    mean: Annotated[str | None, typer.Option(help="Per channel, of pixels in [0, 1]: 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    size: Annotated[int | None, typer.Option(min=4, help="Side of the input, where the model does not say.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First N images of one fixed permutation.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that permutation and of the attacks' random starts.")] = 0,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per batch; no result depends on it.")] = None,
    precision: Annotated[str, typer.Option(help="float32 or bf16.")] = "float32",
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes that share the images: a GPU each, or CPU's.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of each; 0 shares torch's choice.")] = 0,
    data_dir: DataDir = None,
    skip_bad: Annotated[bool, typer.Option(help="Leave out images that can't be read, and say how many.")] = False,
    out: Out = None,
) -> int:
    """Show which frequencies a model runs on and how far it can be attacked."""
    from passband.cli import show
    from passband.core.options import parse_value
    from passband.sweeps import probing
    from passband.sweeps.answers import describe
    from passband.train.device import torch_device

    statistics = tuple[float, ...] | None
    planned = probing.plan(only, settings or [], seed, usual=probing.usual_of(model))
    sharing = probing.sharing(
        model, data, weights=weights, pretrained=pretrained, size=size, device=torch_device(device),
        mean=parse_value(statistics, mean, owner="--mean"), std=parse_value(statistics, std, owner="--std"),
        truth=truth, data_dir=data_dir, limit=limit, seed=seed, batch=batch, skip_bad=skip_bad,
        devices=devices, threads=threads,
    )  # fmt: skip
    folder = out or Path("passband-out") / probing.folder_name(model, data)
    with sharing as (asked, batches, share):
        show.head(describe(asked, batches))
        asking = probing.ask(
            asked, batches, planned, folder=folder, command=_command(), precision=precision, usual=only is None,
            share=share,
        )  # fmt: skip
        for results in asking:
            show.results(results)
    show.path("report", folder / "report.html")
    return 0


@app.command(short_help="Edit a model without training, and see whether it gets more robust.")
def harden(
    model: Annotated[str, typer.Argument(help="A timm name, torchvision:NAME, a run, or file.py:factory.")],
    data: Annotated[str, typer.Option(help="A set's name, folder:PATH or images:PATH.")],
    eps: Annotated[str | None, typer.Option(help="Radius of the L∞ ball, pixels in [0, 1]; else 1/255.")] = None,
    keep: Annotated[str | None, typer.Option(help="EDIT=STRENGTH to write; else the best that is no illusion.")] = None,
    cost: Annotated[float, typer.Option(min=0, max=1, help="Clean accuracy that the best may cost.")] = 0.02,
    settings: Settings = None,
    truth: Annotated[str, typer.Option(help="label, or prediction: agreement with the untouched image's.")] = "label",
    weights: Annotated[Path | None, typer.Option(help="A safetensors or torch state dict for the model.")] = None,
    mean: Annotated[str | None, typer.Option(help="Per channel, of pixels in [0, 1]: 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    size: Annotated[int | None, typer.Option(min=4, help="Side of the input, where the model does not say.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First N images of one fixed permutation.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that permutation and of the attacks.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch; results do not depend on it.")] = 128,
    device: Device = "auto",
    data_dir: DataDir = None,
    skip_bad: Annotated[bool, typer.Option(help="Leave out images that can't be read, and say how many.")] = False,
    out: Out = None,
) -> int:
    """Try the papers' training-free edits on a model, attack each, and write the one that helps."""
    from passband.cli import show
    from passband.core.errors import PassbandError
    from passband.core.options import parse_options, parse_value
    from passband.probes import PROBES
    from passband.sweeps import hardening, probing
    from passband.sweeps.answers import describe
    from passband.sweeps.resolve import images_for
    from passband.train.device import torch_device
    from passband.weights.edits import choice, edited

    statistics = tuple[float, ...] | None
    own = {"eps": eps, "also": keep}
    named = [f"{name}={value}" for name, value in own.items() if value is not None]
    if twice := [one for one in named for other in settings or [] if other.partition("=")[0] == one.partition("=")[0]]:
        raise PassbandError(f"{twice[0]} is given twice, by its own option and by --set; leave one out")
    planned = probing.plan("harden", [f"harden.{one}" for one in [*named, *(settings or [])]], seed)
    parse_options(PROBES["harden"], planned["harden"], owner="probe harden")  # refused before any work
    folder = out or Path("passband-out") / f"harden-{probing.folder_name(model, data)}"
    hardening.check_place(model, folder)
    asked = probing.load(
        model, weights=weights, size=size, device=torch_device(device),
        mean=parse_value(statistics, mean, owner="--mean"), std=parse_value(statistics, std, owner="--std"),
    )  # fmt: skip
    if keep is not None:
        edited(asked.model, *choice(keep))
    batches = images_for(
        asked, data, truth=truth, data_dir=data_dir, limit=limit, seed=seed, batch=batch,
        device=torch_device(device), skip_bad=skip_bad,
    )  # fmt: skip
    show.head(describe(asked, batches))
    (results,) = probing.ask(asked, batches, planned, folder=folder, command=_command())
    show.results(results)
    show.path("report", folder / "report.html")
    chosen = hardening.best(results, cost) if keep is None else choice(keep)
    if chosen is None:
        show.line(f"no edit is more robust at a cost of {cost:.3g} or less: none is written (--keep EDIT=STRENGTH)")
        return 0
    where = hardening.write(asked, model, chosen, folder)
    show.line(f"written: {chosen[0]}={chosen[1]:g}, judged {hardening.judgment(results, chosen)}")
    show.line(f"model  {where}:model")
    return 0


@app.command(short_help="Train a recipe, or go on with it.")
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A YAML recipe; else the options below.")] = None,
    model: Annotated[str | None, typer.Option(help="A model's name, as --set model.name=NAME.")] = None,
    data: Annotated[str | None, typer.Option(help="A set's name, as --set data.name=NAME.")] = None,
    learn: Annotated[str | None, typer.Option(help="all, channels or spatial.")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    settings: Settings = None,
    keep_epochs: Annotated[bool, typer.Option(help="Keep every epoch's weights, to follow the training.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of a process; 0 is torch's choice.")] = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="GPUs, or processes on a CPU, that share each batch.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines; the command is given on each (docs/scaling.md).")] = 1,
    data_dir: DataDir = None,
    skip_bad: Annotated[bool, typer.Option(help="Pass over photographs of a stream that can't be read.")] = False,
    runs: Annotated[Path | None, typer.Option(help="Folder of all runs; else $PASSBAND_RUNS, else ./runs.")] = None,
) -> int:
    """Train a recipe, go on with it where it was stopped, or find it done."""
    from passband.cli import show
    from passband.core.compute import Compute, speaks
    from passband.core.recipe import Recipe

    fields: dict[str, Any] = {
        "model.name": model,
        "data.name": data,
        "learn": learn,
        "epochs": epochs,
        "seed": seed,
    }
    given = [f"{name}={value}" for name, value in fields.items() if value is not None]
    wanted = (Recipe() if recipe is None else Recipe.read(recipe)).with_settings([*given, *(settings or [])])
    compute = Compute(
        device=device, threads=threads, keep_epochs=keep_epochs, devices=devices, nodes=nodes, skip_bad=skip_bad
    )  # fmt: skip

    from passband.train.run import train as train_recipe

    run = train_recipe(wanted, compute=compute, runs=runs, data_dir=data_dir)
    if speaks():
        show.head(dict(run.metrics.items()))
        show.path("run", run.folder)
    return 0


@app.command(short_help="Write a model as ONNX.")
def export(
    model: Annotated[str, typer.Argument(help="A timm name, torchvision:NAME, a run, or file.py:factory.")],
    file: Annotated[Path, typer.Argument(help="Where to: a name that ends with .onnx.")],
    weights: Annotated[Path | None, typer.Option(help="A safetensors or torch state dict for the model.")] = None,
    pretrained: Annotated[bool, typer.Option(help="Whether a library's model comes with its trained weights.")] = True,
    mean: Annotated[str | None, typer.Option(help="Per channel, of pixels in [0, 1]: 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    size: Annotated[int | None, typer.Option(min=4, help="Side of the input, where the model does not say.")] = None,
    folded: Annotated[bool, typer.Option("--folded", help="Fold batch norms and what else is fixed before.")] = False,
) -> int:
    """Write a model as ONNX, images in [0, 1] in and logits out, and hold onnxruntime's answers against its own."""
    from passband.cli import show
    from passband.core.options import parse_value
    from passband.sweeps import probing
    from passband.weights.export import check_export, export_onnx

    statistics = tuple[float, ...] | None
    check_export(file)  # before a model is loaded
    asked = probing.load(
        model, weights=weights, pretrained=pretrained, size=size,
        mean=parse_value(statistics, mean, owner="--mean"), std=parse_value(statistics, std, owner="--std"),
    )  # fmt: skip
    show.line(str(export_onnx(asked.model, file, folding=folded)))
    return 0


@app.command(short_help="Measure a table or figure of a paper again.")
def reproduce(
    name: Annotated[str | None, typer.Argument(help="PAPER/NAME, as `passband list experiments` shows them.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every table and figure of the papers, one after another.")
    ] = False,
    scale: Annotated[str, typer.Option(help="smoke, small or full.")] = "smoke",
    data: Annotated[str | None, typer.Option(help="A set in place of the one that the experiment names.")] = None,
    on: Annotated[
        str | None,
        typer.Option(help="local:N, ray, ray:ADDRESS, slurm or slurm:partition=gpu,...; else one case after another."),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads, shared by local:N's workers; of each case on ray and slurm.")
    ] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the answer; with --all, of all answers.")] = None,
) -> int:
    """Measure a table or figure of a paper again and judge its claims."""
    from passband.cli import reproducing
    from passband.core.errors import PassbandError
    from passband.core.store import file_name

    if all_ == (name is not None):
        came = "both" if all_ else "neither"
        raise PassbandError(f"reproduce takes one experiment, such as spatial-mixing/width, or --all; got {came}")
    endings = [scale, *([data] if data else [])]
    wanted = reproducing.Wanted(scale, data, data_dir, device, on, threads)
    if name is not None:
        folder = out or Path("passband-out") / file_name(name, *endings)
        return reproducing.one(name, wanted, folder, _command())
    folders = out or Path("passband-out")
    return reproducing.every(wanted, lambda one: folders / file_name(one, *endings), _command)


@app.command(short_help="Make an answer's page again.")
def report(folder: Annotated[Path, typer.Argument(help="The folder of an answer.")]) -> int:
    """Make an answer's page again from its JSON."""
    from passband.cli import show
    from passband.reports import page

    show.path("report", page.write(folder))
    return 0


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="models, data, attacks, probes or experiments.")]) -> int:
    """List what there is by name."""
    from passband.core.errors import unknown

    kinds = ("models", "data", "attacks", "probes", "experiments")
    if what not in kinds:
        raise unknown("list", what, kinds)
    from passband.cli import show
    from passband.sweeps import listing

    entries = _experiments() if what == "experiments" else listing.entries(what)
    for name, text in entries:
        show.line(f"{name}  {text}".rstrip())
    return 0


def _experiments() -> list[tuple[str, str]]:
    from passband.experiments.catalog import find, names

    return [(name, f"{find(name).title} ({find(name).source})") for name in names()]


@app.command(short_help="Make a data set derived from another.")
def data(
    name: Annotated[str, typer.Argument(help="What to make: cifar10-jpeg, or shards of class folders.")],
    folder: Annotated[Path | None, typer.Argument(help="Of shards: class folders in train/, test/ or val/.")] = None,
    to: Annotated[Path | None, typer.Argument(help="Of shards: the folder to write.")] = None,
    size_mb: Annotated[float, typer.Option(help="Of shards: megabytes of each.")] = 32,
    per_shard: Annotated[int | None, typer.Option(help="Of shards: images in each, in place of megabytes.")] = None,
    data_dir: DataDir = None,
) -> int:
    """Make a data set that is derived from another one."""
    from passband.cli import show
    from passband.core.errors import PassbandError, unknown

    if name not in ("cifar10-jpeg", "shards"):
        raise unknown("derived data set", name, ["cifar10-jpeg", "shards"])
    if name == "shards":
        if folder is None or to is None:
            raise PassbandError("shards are packed by `passband data shards FOLDER TO`; give both folders")
        from passband.data.shard_pack import pack

        show.path(name, pack(folder, to, size_mb=size_mb, per_shard=per_shard))
        return 0
    if folder is not None:
        raise PassbandError(f"cifar10-jpeg takes no folder, and {folder} was given; name its place with --data-dir")
    from passband.data.cifar10_jpeg import make

    show.path(name, make(data_dir))
    return 0
