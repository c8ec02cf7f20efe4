"""One training in two processes: the same as in one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.train import launch, run

ONE = Compute(device="cpu", threads=1)
TWO = replace(ONE, devices=2)
TINY = Recipe.of({
    "model": {"name": "separable_resnet", "depth": 1, "width": 4, "multiplier": 1},
    "data": {"name": "photos", "part": 24, "size": 16}, "batch": 8, "epochs": 3, "sync_batchnorm": True,
    "precision": "float64",
})  # fmt: skip
ALIKE = {
    "plain": TINY,
    "adversarial": TINY.with_settings(["attack.name=pgd", "attack.steps=2", "ema.decay=0.9", "clip=1"]),
    # Its last batch is shorter than the others.
    "trades": TINY.with_settings(["scheme.name=trades", "attack.name=tpgd", "attack.steps=2", "data.part=20"]),
    # Each process takes one piece, with its own mixtures; there are no batch norms to tell them apart.
    "pieces": TINY.with_settings(
        ["sync_batchnorm=null", "pieces=2", "scheme.name=mixup", "model.name=small_lenet", "data.size=28", "epochs=1"]
    ),
}  # fmt: skip
APART = TINY.with_settings(["sync_batchnorm=null"])
REFUSED = {
    "train it on one device": TINY.with_settings(["scheme.name=free"]),
    "give pieces=2": TINY.with_settings(["scheme.name=mixup"]),
    "a multiple of 2": TINY.with_settings(["pieces=3", "sync_batchnorm=null", "batch=9"]),
    "the smallest of this training has 2": TINY.with_settings(["data.part=27", "batch=25", "sync_batchnorm=null"]),
}


def several(fabric, recipes, runs):
    """Train one after another in the same processes, whose start takes longer than all of it."""
    found = {}
    for name, recipe in recipes.items():
        try:
            found[name] = run._train(fabric, recipe, TWO, runs, None)
        except PassbandError as error:
            found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return launch.launch(
        several, TWO, "float64", ALIKE | {"apart": APART} | REFUSED, tmp_path_factory.mktemp("two")
    )  # fmt: skip


def apart(one, two) -> float:
    """Return the largest difference between two runs' weights, which are of the order of 1."""
    weights, others = (load_file(run.folder / "weights.safetensors") for run in (one, two))
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_train_what_one_does(name, shared, tmp_path) -> None:
    """Three epochs in double precision agree to 1e-9."""
    one, two = run.train(ALIKE[name], compute=ONE, runs=tmp_path), shared[name]
    assert apart(one, two) < 1e-9
    logs = [[line.split(",")[:-1] for line in (of.folder / "log.csv").read_text().split()[1:]] for of in (one, two)]
    for line, other in zip(*logs, strict=True):
        assert [float(value) for value in line] == pytest.approx([float(value) for value in other], abs=2e-6)
    assert two.digest == one.digest and two.metrics["test_accuracy"] == one.metrics["test_accuracy"]
    assert json.loads((two.folder / "environment.json").read_text())["processes"] == 2


def test_batch_norms_of_their_own_make_another_training(shared) -> None:
    assert shared["apart"].digest != shared["plain"].digest
    assert apart(shared["plain"], shared["apart"]) > 1e-3


@pytest.mark.parametrize("words", REFUSED)
def test_what_two_processes_cannot_share(words, shared) -> None:
    assert words in shared[words]


@pytest.mark.slow
def test_five_steps_in_single_precision_and_a_refusal_in_processes_of_their_own(tmp_path) -> None:
    recipe = TINY.with_settings(["precision=float32", "data.part=40", "epochs=1"])
    one, two = (run.train(recipe, compute=how, runs=tmp_path / str(how.devices)) for how in (ONE, TWO))
    assert apart(one, two) < 1e-6
    with pytest.raises(PassbandError, match="train it on one device"):
        run.train(REFUSED["train it on one device"], compute=TWO, runs=tmp_path)


@pytest.mark.slow
def test_torchrun_starts_the_same_training(tmp_path) -> None:
    (tmp_path / "recipe.yaml").write_text(TINY.with_settings(["epochs=1"]).text())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "passband", "train", str(tmp_path / "recipe.yaml"), "--device", "cpu", "--threads", "1"]
    done = subprocess.run([*command, "--runs", str(tmp_path / "runs")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test_accuracy") == 1  # one process speaks
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2


def test_nodes_need_to_know_of_each_other(monkeypatch, tmp_path) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PassbandError, match="--nodes 2 needs MASTER_ADDR, MASTER_PORT, NODE_RANK"):
        run.train(TINY, compute=replace(ONE, nodes=2), runs=tmp_path)


@pytest.mark.slow
def test_two_nodes_of_one_process_each(tmp_path) -> None:
    """Both on this machine: the same command, told apart by NODE_RANK alone."""
    (tmp_path / "recipe.yaml").write_text(TINY.with_settings(["epochs=1"]).text())
    command = [sys.executable, "-m", "passband", "train", str(tmp_path / "recipe.yaml"), "--nodes", "2"]
    command += ["--device", "cpu", "--threads", "1", "--runs", str(tmp_path / "runs")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        known = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    nodes = [subprocess.Popen(command, env=known | {"NODE_RANK": str(number)}) for number in range(2)]
    assert [node.wait(300) for node in nodes] == [0, 0]
    one = run.train(TINY.with_settings(["epochs=1"]), compute=ONE, runs=tmp_path / "one")
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert apart(one, run.open_run(folder)) < 1e-9
