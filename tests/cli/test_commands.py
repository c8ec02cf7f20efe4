from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from passband.cli import main
from passband.core.answer import Answer
from passband.core.results import Curve, Table
from passband.core.scale import Scale
from passband.experiments import catalog
from passband.experiments.spatial_mixing import settings
from passband.sweeps.resolve import subject
from passband.weights.edits import edited

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, CLASSES)
        self.input_size = (16, 16)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

def tiny():
    torch.manual_seed(0)
    net = Net()
    net.default_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return net

def unknown():
    net = Net()
    net.default_cfg = {"input_size": (3, 16, 16)}
    return net

def nan():
    net = tiny()
    net.conv.weight.data[0] = float("nan")
    return net

def broken():
    raise RuntimeError("no\\nluck")
"""

TINY = {"width": 4, "part": 64, "epochs": 1, "batch": 32}
"""A separable ResNet's training that takes no time."""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A user's folder: a model of their own and two classes of images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PASSBAND_DATA", raising=False)
    monkeypatch.delenv("PASSBAND_RUNS", raising=False)
    (tmp_path / "net.py").write_text(MODEL.replace("CLASSES", "2"))
    (tmp_path / "net5.py").write_text(MODEL.replace("CLASSES", "5"))
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(6):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), out.out, out.err


def probe(capsys, *arguments: str) -> tuple[int, str, str]:
    return run(capsys, "probe", "net.py:tiny", "--data", "folder:set", "--device", "cpu", *arguments)


def test_probe_writes_an_answer_and_the_second_time_finds_it(place, capsys, monkeypatch) -> None:
    code, out, _ = probe(
        capsys, "--only", "bands,robustness", "--set", "bands.radii=2,4", "--set", "robustness.steps=2"
    )
    assert code == 0
    assert "the model's default_cfg" in out and "images  12\n" in out
    folder = place / "passband-out" / "net.py-tiny-folder-set"
    assert (folder / "report.html").exists()
    answer = Answer.load(folder)
    curve = answer["bands.accuracy"]
    assert isinstance(curve, Curve) and curve.x.values == (2.0, 4.0)
    assert curve.how["count"] == 12
    assert curve.how["command"].startswith("passband probe net.py:tiny --data folder:set")

    from passband.probes import PROBES

    monkeypatch.setitem(PROBES._parts, "bands", _forbidden(PROBES["bands"]))
    again = probe(capsys, "--only", "bands,robustness", "--set", "bands.radii=2,4", "--set", "robustness.steps=2")
    assert again[0] == 0
    assert again[1] == out


def _forbidden(function):
    @functools.wraps(function)
    def refuse(model, batches, **options):
        raise AssertionError("a kept answer was measured again")

    return refuse


def test_a_changed_weight_never_meets_an_old_answer(place, capsys) -> None:
    probe(capsys, "--only", "bands")
    first = Answer.load(place / "passband-out" / "net.py-tiny-folder-set")["bands.clean"].how["weights"]
    (place / "net.py").write_text(MODEL.replace("CLASSES", "2").replace("manual_seed(0)", "manual_seed(1)"))
    probe(capsys, "--only", "bands")
    assert Answer.load(place / "passband-out" / "net.py-tiny-folder-set")["bands.clean"].how["weights"] != first


def test_changed_code_under_the_same_weights_is_asked_anew(place, capsys) -> None:
    probe(capsys, "--only", "bands")
    folder = place / "passband-out" / "net.py-tiny-folder-set"
    first = Answer.load(folder)["bands.confidence"]
    (place / "net.py").write_text((place / "net.py").read_text().replace("torch.relu", "3 * torch.sigmoid"))
    probe(capsys, "--only", "bands")
    second = Answer.load(folder)["bands.confidence"]
    assert isinstance(first, Curve) and isinstance(second, Curve)
    assert first.how["weights"] == second.how["weights"] and first.series != second.series


def test_a_probe_that_does_not_apply_is_left_out_unless_it_was_asked_for(place, capsys) -> None:
    (place / "mlp.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential): pass\n"
        "def make():\n"
        "    net = Net(nn.Flatten(), nn.Linear(768, 2)); net.mean = net.std = (0.5,) * 3\n"
        "    return net\n"
    )
    arguments = ("probe", "mlp.py:make", "--data", "folder:set", "--size", "16", "--device", "cpu")
    code, _, err = run(capsys, *arguments, "--only", "kernels")
    assert code == 2 and "convolution" in err
    code, out, _ = run(capsys, *arguments, "--set", "robustness.steps=1")
    assert code == 0 and "report" in out
    notes = Answer.load(place / "passband-out" / "mlp.py-make-folder-set").head["notes"]
    assert [note.partition(" was")[0] for note in notes][-2:] == ["kernels", "envelope"]


def test_bfloat16_runs_every_usual_probe(place, capsys) -> None:
    code, _, err = probe(capsys, "--precision", "bf16", "--set", "robustness.steps=1")
    assert code == 0, err
    answer = Answer.load(place / "passband-out" / "net.py-tiny-folder-set")
    assert {result.how["precision"] for result in answer.results} == {"bf16"}


def test_truth_is_the_models_own_prediction_where_classes_differ(place, capsys) -> None:
    arguments = (
        "probe",
        "net5.py:tiny",
        "--data",
        "folder:set",
        "--only",
        "bands,robustness",
        "--device",
        "cpu",
    )
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "--truth prediction" in err and len(err.strip().splitlines()) == 1
    code, out, _ = run(capsys, *arguments, "--truth", "prediction")
    assert code == 0 and "agreement" in out


def test_images_without_labels(place, capsys) -> None:
    arguments = (
        "probe",
        "net.py:tiny",
        "--data",
        "images:set/test/cat",
        "--only",
        "bands",
        "--device",
        "cpu",
    )
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "--truth prediction" in err
    assert run(capsys, *arguments, "--truth", "prediction")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prob",), "Did you mean 'probe'"),
        (("probe", "resnet19", "--data", "photos"), "unknown model 'resnet19': did you mean 'resnet1"),
        (("probe", "net.py:tiny", "--data", "fotos"), "did you mean 'photos'"),
        (("harden", "net.py:tiny", "--data", "folder:set", "--eps", "4"), "eps lies above 0 and up to 1"),
        (("harden", "net.py:tiny", "--data", "folder:set", "--keep", "low-pass-input=99"), "keeps all of 16 pixels"),
        (("harden", "net.py:tiny", "--data", "fotos", "--keep", "smooth-depthwise=1"), "has no depthwise convolution"),
        (("harden", "net.py:tiny", "--data", "folder:set", "--keep", "smoothed"), "EDIT=STRENGTH was needed"),
        (("harden", "net.py:tiny", "--data", "folder:set", "--set", "edit=x"), "did you mean 'edits'"),
        (("harden", "net.py:tiny", "--data", "folder:set", "--eps", "1/255", "--set", "eps=0.1"), "given twice"),
        (
            ("probe", "net.py:tiny", "--data", "folder:set", "--only", "band"),
            "unknown probe 'band': did you mean 'bands'",
        ),
        (
            ("probe", "net.py:tiny", "--data", "folder:set", "--only", "bands", "--set", "bands.radi=4"),
            "did you mean 'radii'",
        ),
        (
            ("probe", "net.py:tiny", "--data", "folder:set", "--only", "bands", "--set", "radii=4"),
            "PROBE.OPTION=VALUE",
        ),
        (("probe", "net.py:tiny", "--data", "folder:nowhere"), "nowhere"),
        (("probe", "net.py:tny", "--data", "folder:set"), "did you mean 'tiny'"),
        (("probe", "none.py:tiny", "--data", "folder:set"), "none.py"),
        (("probe", "net.py:unknown", "--data", "folder:set"), "--mean"),
        (("probe", "net.py:broken", "--data", "folder:set"), "RuntimeError: no"),
        (("probe", "net.py:nan", "--data", "folder:set"), "NaN"),
        (("probe", "net.py:tiny", "--data", "folder:set", "--mean", "0.5"), "belong together"),
        (
            ("probe", "net.py:tiny", "--data", "folder:set", "--mean", "a", "--std", "1"),
            "--mean cannot be 'a'",
        ),
        (("probe", "net.py:tiny", "--data", "folder:set", "--weights", "none.pt"), "none.pt"),
        (("probe", "net.py:tiny", "--data", "folder:set", "--precision", "fp8"), "fp8"),
        (("probe", "net.py:tiny", "--data", "folder:set", "--device", "tpu"), "tpu"),
        (("probe", "net.py:tiny", "--data", "folder:set", "--limit", "0"), "--limit"),
        (("probe", "net.py:tiny", "--data", "cifar10", "--data-dir", "empty"), "cifar10"),
        (
            ("probe", "net.py:tiny", "--data", "cifar10-jpeg", "--data-dir", "empty"),
            "passband data cifar10-jpeg",
        ),
        (("train", "none.yaml"), "there is no recipe at none.yaml"),
        (("train", "--model", "separable_resnt"), "did you mean 'separable_resnet'"),
        (("train", "--set", "epoch=1"), "did you mean 'epochs'"),
        (("reproduce", "spatial-mixing/static-filter"), "did you mean 'spatial-mixing/static-filters'"),
        (("reproduce",), "takes one experiment, such as spatial-mixing/width, or --all; got neither"),
        (("reproduce", "quickstart", "--all"), "or --all; got both"),
        (("reproduce", "quickstart", "--scale", "tiny"), "unknown scale 'tiny'"),
        (("report", "nowhere"), "no results.json in nowhere"),
        (("list", "model"), "did you mean 'models'"),
        (("data", "cifar10"), "did you mean 'cifar10-jpeg'"),
        (("train", "--device", "cuda:99"), "device cuda:99: torch finds"),
        (("train", "--device", "cpu:1"), "a device is auto, cpu, cuda"),
        (("train", "--set", "ema.decya=0.9"), "did you mean 'decay'"),
        (("train", "--set", "attack.name=pgd", "--set", "attack.eps=8/0"), "eps cannot be '8/0'"),
        (("train", "--seed", "99999999999999999999999"), "seed"),
        (("train", "--set", "normalize.mean=[0.5]"), "std"),
        (("train", "--runs", "net.py"), "a file is in its way"),
        (("train", "net.py/r.yaml"), "there is no recipe"),
        (("train", "--set", "model.name=resnet18", "--set", "model.act_layer=foo"), "act_layer='foo'"),
        (("probe", "net.py:tiny", "--data", "folder:set", "--out", "net.py"), "a file is in its way"),
        (("reproduce", "quickstart", "--out", "net.py"), "a file is in its way"),
    ],
)
def test_every_mistake_is_one_line_and_exits_with_2(place, capsys, arguments, words) -> None:
    if arguments[0] in ("probe",) and "--device" not in arguments:
        arguments = (*arguments, "--device", "cpu")
    code, _, err = run(capsys, *arguments)
    lines = err.strip().splitlines()
    assert code == 2, err
    assert len(lines) == 1 and lines[0].startswith("passband: "), err
    assert words in lines[0]


def test_bad_images_are_named_and_left_out_only_when_asked(place, capsys) -> None:
    bad = place / "set" / "test" / "cat" / "0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    code, _, err = probe(capsys, "--only", "bands")
    assert code == 2 and "0.png" in err and "--skip-bad" in err
    code, out, _ = probe(capsys, "--only", "bands", "--skip-bad")
    assert code == 0 and "images  11\n" in out and "1 of 12 images were left out" in out


def test_weights_of_another_architecture_truncated_and_nan(place, capsys) -> None:
    torch.save(torch.nn.Linear(2, 3).state_dict(), place / "other.pt")
    code, _, err = probe(capsys, "--weights", "other.pt")
    assert code == 2 and "other.pt" in err
    torch.save({"conv.weight": torch.zeros(4, 3, 3, 3)}, place / "cut.pt")
    (place / "cut.pt").write_bytes((place / "cut.pt").read_bytes()[:300])
    code, _, err = probe(capsys, "--weights", "cut.pt")
    assert code == 2 and "cut.pt" in err and len(err.strip().splitlines()) == 1


def test_debug_shows_the_traceback(place) -> None:
    from passband.core.errors import PassbandError

    with pytest.raises(PassbandError):
        main(["list", "model", "--debug"])


def test_lists(place, capsys) -> None:
    for what, word in [
        ("models", "separable_resnet"), ("data", "photos"), ("attacks", "pgd"), ("probes", "bands"),
        ("experiments", "spatial-mixing/static-filters"),
    ]:  # fmt: skip
        code, out, _ = run(capsys, "list", what)
        assert code == 0 and word in out


def test_reproduce_measures_judges_and_continues(place, capsys, monkeypatch) -> None:
    monkeypatch.setitem(settings._SEPARABLE, Scale.SMOKE, TINY)
    arguments = ("reproduce", "spatial-mixing/static-filters", "--scale", "smoke", "--device", "cpu")
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and "not judged at this scale" in out
    answer = Answer.load(place / "passband-out" / "spatial-mixing-static-filters-smoke")
    table = answer["table"]
    assert isinstance(table, Table) and len(table.rows) == 5
    assert {claim.verdict for claim in answer.claims} == {"not judged at this scale"}
    again = run(capsys, *arguments)
    assert again[0] == 0
    rows = Answer.load(place / "passband-out" / "spatial-mixing-static-filters-smoke")["table"]
    assert isinstance(rows, Table) and rows.rows == table.rows


def test_all_experiments_are_measured_one_after_another(place, capsys, monkeypatch) -> None:
    names = ["spatial-mixing/parameter-counts", "spatial-mixing/envelope-growth"]
    monkeypatch.setattr(catalog, "of_papers", lambda: names)
    code, out, _ = run(capsys, "reproduce", "--all", "--device", "cpu", "--out", "answers")
    assert code == 0 and "2 experiments; in 0 of them a claim fails" in out
    for name in names:
        folder = f"answers/{name.replace('/', '-')}-smoke"
        answer = Answer.load(place / folder)
        assert answer.head["command"] == f"passband reproduce {name} --device cpu --out {folder}"


def test_all_experiments_of_papers_are_found() -> None:
    assert {name.partition("/")[2] for name in catalog.of_papers() if name.startswith("spatial-mixing/")} == {
        "envelope-growth", "resnet-depth", "static-filters", "width", "convmixer-depth", "training-time",
        "adversarial", "smoothed-filters", "learned-filters", "unshuffle", "parameter-counts",
    }  # fmt: skip
    assert "quickstart" not in catalog.of_papers()


def test_a_set_that_is_not_there_is_a_row_that_says_so(place, capsys) -> None:
    (place / "empty").mkdir()
    arguments = ("--scale", "smoke", "--data", "cifar10-jpeg", "--data-dir", "empty", "--device", "cpu")
    code, _, _ = run(capsys, "reproduce", "spatial-mixing/static-filters", *arguments)
    assert code == 0
    table = Answer.load(place / "passband-out" / "spatial-mixing-static-filters-smoke-cifar10-jpeg")["table"]
    assert isinstance(table, Table)
    assert {row[-1] for row in table.rows} == {"not measured: needs cifar10-jpeg"}


def test_the_report_is_made_again_without_torch(place, capsys) -> None:
    probe(capsys, "--only", "bands")
    folder = place / "passband-out" / "net.py-tiny-folder-set"
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    block = "import sys; sys.modules['torch'] = sys.modules['timm'] = None\n"
    block += "from passband.cli import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", block, "report", str(folder)], check=True, capture_output=True)
    assert (folder / "report.html").read_text() == before
    assert json.loads((folder / "results.json").read_text())["schema"] == 1


def test_a_table_of_few_rows_shows_every_case_and_one_of_many_says_what_it_leaves_out(capsys) -> None:
    from passband.cli import show
    from passband.core.results import Column

    columns = (Column(name="case"), *(Column(name=f"measured number {index}") for index in range(9)))
    few = [(f"everything, learned, {index}", *(1.5,) * 9) for index in range(4)]
    show.table(Table(name="t", title="t", columns=columns, rows=tuple(few)))
    printed = capsys.readouterr().out
    assert "more columns" not in printed and printed.count("everything") == 4
    show.table(Table(name="t", title="t", columns=columns, rows=tuple(few * 2)))
    printed = capsys.readouterr().out
    assert "more columns stand in the report" in printed and printed.count("everything") == 8


def test_harden_writes_the_model_that_it_measured(place, capsys, monkeypatch) -> None:
    small = [f"{option}=2" for option in ("attacked", "queried", "queries")]
    sets = [word for one in ("edits=low-pass-input", "strengths=12", *small) for word in ("--set", one)]
    words = ["harden", "net.py:tiny", "--data", "folder:set", "--keep", "low-pass-input=8", "--out", "answer", *sets]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert "written: low-pass-input=8, judged" in out and "model  answer/hardened.py:model" in out
    table = Answer.load(place / "answer")["harden.frontier"]
    assert isinstance(table, Table)
    assert [row[:2] for row in table.rows] == [("unedited", None), ("low-pass-input", 12.0), ("low-pass-input", 8.0)]
    images = torch.rand(2, 3, 16, 16)
    asked, again = (subject(name).model for name in ("net.py:tiny", "answer/hardened.py:model"))
    torch.testing.assert_close(again(images), edited(asked, "low-pass-input", 8.0)(images))
    # Found done the second time, from any option that leaves no choice.
    assert run(capsys, *words)[:2] == (code, out)
    monkeypatch.chdir(place / "answer")
    assert run(capsys, "harden", "hardened.py:model", "--data", "folder:../set", "--out", ".")[0] == 2
