"""Training from end to end: what a run leaves behind, and what can't stop or spoil it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from cli.commands import app
from massl.core.errors import MasslError
from massl.core.images.decoding import open_image
from massl.core.images.fitting import fit
from massl.data.sources import find_source
from massl.encoder import checkpoint, weights
from massl.encoder.export import export
from massl.encoder.inference import Deployed
from massl.encoder.weights import read_initial
from massl.method.views import on_device
from massl.planning import plan
from massl.training import learner
from massl.training import loop as training
from massl.training.loop import Interrupted, train
from tests.forked import Forks
from tests.massl.conftest import SMALL, SMALL_VIT, full_disk, small_settings


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_behind(run: Path) -> None:
    tables = tomllib.loads((run / "config.toml").read_text())
    assert tables["run"]["images"] == 30
    assert tables["settings"]["memory"] == 32
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {
        "loss",
        "rank",
        "spread",
        "student_entropy",
        "teacher_entropy",
        "learning_rate",
        "images_per_second",
    } <= set(rows[0])
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    # The best, the last, and one before it: where a measurement was better, or every fourth step.
    assert {"best.pt", "step-00000008.pt"} < kept
    assert len(kept) == 3
    assert list(run.glob("events.out.tfevents.*"))
    state = checkpoint.load(run / "checkpoints" / "step-00000008.pt")
    assert state["images_seen"] == 32
    assert int(state["memory"]["written"]) == 32


def test_a_run_is_told_as_far_as_it_came(run: Path, tmp_path: Path) -> None:
    lines = CliRunner().invoke(app, ["info", str(run)]).output
    assert "progress     step 8 of 8, 1.1 epochs\n" in lines
    assert " left at that pace" not in lines
    assert "encoder      none yet; massl export makes one" in lines
    assert "settings     backbone = vit_shallow_patch16\n             patch_size = 16\n" in lines
    shutil.copy(run / "config.toml", tmp_path)
    (tmp_path / "encoder.onnx").touch()
    lines = CliRunner().invoke(app, ["info", str(tmp_path)]).output
    assert "progress     no step finished\n" in lines
    assert f"encoder      {tmp_path / 'encoder.onnx'}\n" in lines
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    (tmp_path / "metrics.jsonl").write_text(json.dumps(rows[4] | {"loss": None}))
    lines = CliRunner().invoke(app, ["info", str(tmp_path)]).output
    assert "loss         not finite\n" in lines
    assert " left at that pace\n" in lines


def test_the_teacher_follows_and_the_memory_holds_its_second_view(photos: Path, tmp_path: Path, monkeypatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    plain = learner.massl_loss

    def watched(student, teacher, memory, *rest):
        seen.append((teacher.detach().clone(), memory.clone()))
        return plain(student, teacher, memory, *rest)

    monkeypatch.setattr(learner, "massl_loss", watched)
    source, _ = find_source(photos)
    train(source, tmp_path / "run", small_settings(momentum="0.5"))
    for (teacher, before), (_, after) in itertools.pairwise(seen):
        changed = (before != after).any(1).nonzero().flatten()
        torch.testing.assert_close(after[changed], teacher[1])  # four new rows, from the second global view alone
    first = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000004.pt")
    last = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000008.pt")
    name = "backbone.blocks.0.attn.qkv.weight"
    student, teacher = last["student"][name], last["teacher"][name]
    assert 0 < float((student - teacher).abs().max()) < float((student - first["teacher"][name]).abs().max())


@pytest.mark.parametrize(("backbone", "augment"), [("test_vit", "loader"), ("test_resnet", "device")])
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(
    photos: Path, tmp_path: Path, backbone: str, augment: str
) -> None:
    source, _ = find_source(photos)
    norms = {"head_norm": "true", "projection_norm": "true"}
    settings = small_settings(backbone=backbone, augment=augment, drop_path="0.2", **norms)
    train(source, tmp_path / "whole", settings)
    steps: list[int] = []
    with pytest.raises(Interrupted, match="stopped at step 5; go on with"):
        train(
            source, tmp_path / "parts", settings,
            report=lambda progress: steps.append(progress.step), stop=lambda: steps[-1] == 5,
        )  # fmt: skip
    train(source, tmp_path / "parts", settings, resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    ends = [checkpoint.load(tmp_path / name / "checkpoints" / "step-00000008.pt") for name in ("whole", "parts")]
    for part in ("student", "teacher", "memory"):
        for name, tensor in ends[0][part].items():
            assert torch.equal(tensor, ends[1][part][name]), name


def test_a_killed_run_goes_on_to_the_same_numbers(forks: Forks, photos: Path, tmp_path: Path) -> None:
    flags = [f"--set={name}={value}" for name, value in {**SMALL_VIT, "steps": "12", "precision": "fp32"}.items()]
    command = ["train", photos, *flags, "-q", "--out"]
    assert forks.run([*command, tmp_path / "whole"]).returncode == 0
    with open(os.devnull, "w") as nothing:
        killed = forks.start([*command, tmp_path / "killed"], [nothing.fileno()] * 2)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "step-00000004.pt").exists():
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = forks.run(["train", photos, "--resume", tmp_path / "killed", "-q"])
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert (tmp_path / "killed" / "encoder.onnx").exists()


def test_a_run_is_ended_while_its_encoder_is_made(photos: Path, tmp_path: Path) -> None:
    flags = [f"--set={name}={value}" for name, value in {**SMALL_VIT, "steps": "2", "precision": "fp32"}.items()]
    # The signal comes in when the run has been trained.
    code = (
        "import os, signal, massl.encoder.export\n"
        "whole = massl.encoder.export.export_run\n"
        "massl.encoder.export.export_run = lambda *run: (os.kill(os.getpid(), signal.SIGTERM), whole(*run))[1]\n"
        "from cli import main; main()"
    )
    command = [sys.executable, "-c", code, "train", str(photos), *flags, "-q", "--out", str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode in (130, -signal.SIGINT)
    assert "To export its encoder, run: massl export" in ended.stderr
    assert not (tmp_path / "run" / "encoder.onnx").exists()


def test_a_resumed_run_finds_its_labels_from_anywhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = find_source(photos)
    settings = small_settings(steps="4", checkpoint_every="2")
    monkeypatch.chdir(photos.parent)
    with pytest.raises(Interrupted):
        train(source, tmp_path / "run", settings, labelled=Path(photos.name), stop=lambda: True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = train(source, tmp_path / "run", settings, resume=True)
    assert ended["best"]["metric"] == "knn_top1"
    again = train(source, tmp_path / "run", settings, resume=True)  # it had ended, and is told of as it was
    assert again["metrics"] == {name: value for name, value in ended["metrics"].items() if value is not None}
    assert all(0 <= again["metrics"][name] <= 1 for name in ("knn_top1", "knn_student", "linear_top1"))


def test_broken_files_are_passed_over_and_named(photos: Path, tmp_path: Path) -> None:
    for number in range(3):
        (photos / f"broken{number}.jpg").write_text("not an image")
    source, _ = find_source(photos)
    summary = train(source, tmp_path / "run", small_settings(len(source), steps="12"))
    assert summary["images_seen"] == 48
    assert {row["path"] for row in summary["skipped"]} == {f"broken{number}.jpg" for number in range(3)}
    assert all("not an image" in row["reason"] for row in summary["skipped"])


def test_a_folder_of_broken_files_says_so(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_text("not an image")
    source, _ = find_source(tmp_path)
    with pytest.raises(MasslError, match=r"no image of .* can be read"):
        train(source, tmp_path / "run", small_settings(4))


def test_steps_that_are_not_finite_touch_nothing_and_end_the_run(photos: Path, tmp_path: Path, monkeypatch) -> None:
    plain = learner.massl_loss
    calls = 0

    def sometimes_nan(student, *rest):
        nonlocal calls
        calls += 1
        result = plain(student, *rest)
        return result._replace(loss=result.loss * float("nan")) if calls > 4 else result

    monkeypatch.setattr(learner, "massl_loss", sometimes_nan)
    source, _ = find_source(photos)
    with pytest.raises(MasslError, match=r"not finite in 5 steps in a row .* learning_rate"):
        train(source, tmp_path / "run", small_settings(steps="20", checkpoint_every="1"))
    assert [loss is None for loss in losses(tmp_path / "run")] == [False] * 4 + [True] * 4
    state = checkpoint.load(checkpoint.latest(tmp_path / "run" / "checkpoints"))
    assert state["step"] == 8
    assert int(state["memory"]["written"]) == 16
    assert all(
        torch.isfinite(tensor).all() for part in ("student", "teacher", "memory") for tensor in state[part].values()
    )


def test_a_teacher_that_puts_out_no_numbers_ends_the_run_as_clearly(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(training, "on_device", lambda *given: [group * float("nan") for group in on_device(*given)])
    source, _ = find_source(photos)
    with pytest.raises(MasslError, match=r"not finite in 5 steps in a row"):
        train(source, tmp_path / "run", small_settings(steps="20"))
    assert losses(tmp_path / "run") == [None] * 4


def test_a_run_is_never_overwritten(run: Path, pictures: Path) -> None:
    source, _ = find_source(pictures / "flag")
    with pytest.raises(MasslError, match="already holds a run; continue it with --resume"):
        train(source, run, small_settings(len(source)))


def test_resuming_on_other_images_is_refused(run: Path, photos: Path) -> None:
    source, _ = find_source(photos)
    with pytest.raises(MasslError, match=r"was started on 30 images, but .* now holds 24"):
        train(source, run, small_settings(), resume=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "is damaged, or not a checkpoint"),
        (lambda data: b"", "is damaged, or not a checkpoint"),
        (lambda data: b"something else", "is damaged, or not a checkpoint"),
    ],
)
def test_a_damaged_checkpoint_says_so(run: Path, tmp_path: Path, damage, message: str) -> None:
    data = (run / "checkpoints" / "step-00000008.pt").read_bytes()
    (tmp_path / "step.pt").write_bytes(damage(data))
    with pytest.raises(MasslError, match=message):
        checkpoint.load(tmp_path / "step.pt")


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"teacher": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(MasslError, match="is damaged, or not a checkpoint"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_keeps_the_earlier_checkpoints(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1}, keep=2)
    reason = r"step-00000002\.pt can't be written .* earlier checkpoints are kept"
    with pytest.raises(MasslError, match=reason), full_disk():
        checkpoint.save(tmp_path, 2, {"step": 2, "weights": torch.zeros(100_000)}, keep=2)
    assert checkpoint.load(checkpoint.latest(tmp_path))["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]


def test_a_plan_fits_the_collection_and_can_be_overridden() -> None:
    settings, table = plan("cpu", 20_000)
    assert 2048 <= settings.memory <= 10_000
    assert settings.block == settings.memory // 8
    assert {choice.name for choice in table} == set(vars(settings))
    assert all(choice.why for choice in table)
    settings, table = plan("cpu", 2000, {"memory": "512", "global_scale": "0.5,1", "learning_rate": "1e-3"})
    assert (settings.memory, settings.block, settings.global_scale) == (512, 64, (0.5, 1.0))
    assert next(choice.why for choice in table if choice.name == "memory") == "given"
    assert plan("cpu", 10)[0].batch == 10


def test_the_paper_presets_are_the_authors_recipes() -> None:
    small, _ = plan("vit-s16-paper", 1_281_167)
    assert (small.memory, small.block, small.momentum, small.local_views) == (131072, 16384, 0.992, 10)
    assert (small.learning_rate, small.learning_rate_end, small.warmup) == (5e-4, 1e-6, 0)
    assert small.steps == 800 * (1_281_167 // 128)
    assert small.temperature_warmup == 30 * (1_281_167 // 128)
    base, _ = plan("vit-b16-paper", 1_281_167)
    assert (base.momentum, base.learning_rate, base.learning_rate_end) == (0.996, 7.5e-4, 2e-6)
    assert base.warmup == 10 * (1_281_167 // 128)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"nonsense": "1"}, "there is no setting 'nonsense'"),
        ({"batch": "many"}, "batch must be a whole number"),
        ({"batch": "0"}, "batch must be above 0"),
        ({"block": "4096", "memory": "64"}, "block .* must not be larger than memory"),
        ({"image_size": "50"}, "must be a multiple of patch_size"),
        ({"local_scale": "0.9,0.1"}, "local_scale must be two shares"),
        ({"precision": "fp64"}, "precision must be bf16, fp16 or fp32"),
        ({"backbone": "vit_nonsense"}, "timm has no network called 'vit_nonsense'"),
    ],
)
def test_settings_that_can_not_work_say_why(photos: Path, tmp_path: Path, overrides, message: str) -> None:
    with pytest.raises(MasslError, match=message):
        train(find_source(photos)[0], tmp_path / "run", small_settings(**overrides))


def test_one_image_is_not_enough() -> None:
    with pytest.raises(MasslError, match="1 image: at least 2"):
        plan("cpu", 1)


@pytest.mark.parametrize(("source", "backbone"), [("run", "vit_shallow_patch16"), ("encoder.onnx", "resnet18")])
def test_a_run_begins_with_the_weights_of_another(source: str, backbone: str, photos: Path, tmp_path: Path) -> None:
    images, _ = find_source(photos)
    train(images, tmp_path / "run", small_settings(backbone=backbone, steps="2", seed="7"))
    if source == "encoder.onnx":
        export(str(tmp_path / "run"), tmp_path / source)
    initial = read_initial(str(tmp_path / source))
    # With no rate nothing moves but batch statistics, so that it still embeds as what it began with.
    flags = {**SMALL, "steps": "1", "learning_rate": "1e-30", "learning_rate_end": "0", "precision": "fp32"}
    settings, table = plan("cpu", len(images), flags, begins=initial.begins)
    assert {choice.name: choice.why for choice in table}["backbone"] == "of the weights that it begins with"
    files = [photos / images.name(index) for index in range(len(images))]
    pixels = torch.from_numpy(np.stack([np.asarray(fit(open_image(file), 32, 32)) for file in files]))

    def embedded(run: Path) -> Tensor:
        with torch.no_grad():
            return Deployed(weights.read(str(run))).eval()(pixels)[0]

    likeness = []
    for name, begun_with in (("begun", initial), ("random", None)):
        train(images, tmp_path / name, settings, initial=begun_with)
        likeness.append((embedded(tmp_path / "run") * embedded(tmp_path / name)).sum(1).mean())
    begun, random = likeness
    assert begun > (0.9999 if backbone == "vit_shallow_patch16" else 0.9)
    assert random < 0.8


def test_weights_for_another_network_are_refused(run: Path) -> None:
    begins = read_initial(str(run)).begins
    with pytest.raises(MasslError, match="of --init are for backbone=vit_shallow_patch16, not resnet18"):
        plan("cpu", 100, {"backbone": "resnet18"}, begins=begins)
    settings = plan("cpu", 100, begins=begins)[0]
    assert (settings.image_size, settings.local_size) == (32, 16)
    assert settings.learning_rate == plan("cpu", 100)[0].learning_rate / 4


def test_shards_train_to_the_same_numbers_as_their_folder(photos: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for index in range(len(source)):
            archive.add(photos / source.name(index), source.name(index))
    settings = small_settings(steps="3", workers="1")
    train(source, tmp_path / "folder", settings)
    train(find_source(tmp_path / "photos.tar")[0], tmp_path / "shard", settings)
    assert losses(tmp_path / "shard") == losses(tmp_path / "folder")


def test_a_run_goes_on_longer_in_another_precision_and_with_other_workers(photos: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    begun = small_settings(steps="4", precision="fp16", augment="loader")
    train(source, tmp_path / "run", begun)
    changed = dataclasses.replace(begun, steps=6, precision="bf16", augment="device", workers=1, batch=2, seed=5)
    ended = train(source, tmp_path / "run", changed, resume=True)
    assert len(losses(tmp_path / "run")) == ended["steps"] == 6
    assert ended["images_seen"] == 24  # what may not change is as it was
    again = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (again["settings"]["steps"], again["settings"]["precision"], again["settings"]["batch"]) == (6, "fp16", 4)
    assert again["run"]["images"] == 24
    with pytest.raises(MasslError, match="the run has done 6 steps; give at least as many"):
        train(source, tmp_path / "run", begun, resume=True)


def test_the_command_changes_of_a_run_what_may_change(massl_train, photos: Path, tmp_path: Path) -> None:
    flags = [f"--set={name}={value}" for name, value in {**SMALL, "steps": "2"}.items()]
    massl_train(photos, "--backbone", "vit_shallow_patch16", *flags, "--precision", "fp32", "--out", tmp_path / "run")
    resume = ["train", str(photos), "--resume", str(tmp_path / "run")]
    for words in (
        ["--set", "batch=2"],
        ["--preset", "cpu"],
        ["--config", str(tmp_path / "run" / "config.toml")],
        ["--set", "augment=device", "--set", "seed=1"],
    ):
        refused = CliRunner().invoke(app, [*resume, *words])
        assert refused.exit_code == 2
        assert "what may change is" in re.sub(r"[\s│]+", " ", refused.output)
    massl_train(
        photos, "--resume", tmp_path / "run", "--epochs", "1", "--set", "augment=device", "--workers", "0", "-q"
    )
    assert len(losses(tmp_path / "run")) == 6


def test_flags_win_over_a_file_of_settings(massl_train, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("batch = 5\nseed = 3\nlearning_rate = 0.01\nglobal_scale = [0.5, 1.0]\n")
    words = [photos, "--plan", "--json", "--config", tmp_path / "mine.toml", "--seed", "4", "--set", "learning_rate=1"]
    found = json.loads(massl_train(*words))["settings"]
    values = [found[name]["value"] for name in ("batch", "seed", "learning_rate", "global_scale")]
    assert values == [5, 4, 1, [0.5, 1.0]]


def test_compiling_that_fails_is_dropped_in_a_line(photos: Path, tmp_path: Path, monkeypatch) -> None:
    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no kernel for\nthis machine")

    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=broken))
    source, _ = find_source(photos)
    said: list[str] = []
    train(source, tmp_path / "run", small_settings(compile="true"), report=lambda now: said.extend(now.warnings))
    (line,) = [line for line in said if "compiling" in line]
    assert line.startswith("compiling failed, so the run goes on without it (BackendCompilerFailed: ")
    assert "no kernel for this machine" in line
    train(source, tmp_path / "plain", small_settings())
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")
