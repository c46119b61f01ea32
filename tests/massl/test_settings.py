"""The plan: what a preset leaves open comes from the number of images, with a reason; anything can be overridden."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from massl.core.errors import MasslError
from massl.planning import Begins, concerns, plan
from massl.presets import PRESETS
from massl.settings import Settings, read_overrides, read_settings, write_toml

SIZES = st.integers(2, 3_000_000)


@given(preset=st.sampled_from(sorted(PRESETS)), images=SIZES)
def test_a_plan_works_for_any_number_of_images(preset: str, images: int) -> None:
    begins = Begins("vit_small_patch14_dinov2", 14, False, 126, 126) if preset == "adapt" else None
    settings, table = plan(preset, images, begins=begins)  # Settings refuses what can't work
    assert settings.batch <= images
    assert settings.warmup <= settings.steps
    assert settings.temperature_warmup <= settings.steps
    assert settings.memory >= 8
    assert [choice.name for choice in table] == [field.name for field in dataclasses.fields(Settings)]
    assert all(choice.why and choice.value == getattr(settings, choice.name) for choice in table)


@given(images=SIZES)
def test_a_run_on_a_cpu_takes_about_as_long_for_any_collection(images: int) -> None:
    settings, _ = plan("cpu", images)
    seen = settings.steps * settings.batch
    assert seen <= 1.5 * max(PRESETS["cpu"].seen, images)
    if 1000 <= images <= 100_000:
        assert seen >= PRESETS["cpu"].seen / 1.5


@given(images=st.integers(1_000, 30_000))
def test_what_begins_with_weights_learns_more_slowly_and_for_a_shorter_time(images: int) -> None:
    scratch, _ = plan("cpu", images)
    begun, table = plan("cpu", images, begins=Begins("resnet18", None, False, 96, 96))
    assert begun.learning_rate == scratch.learning_rate / 4
    assert 0.6 * scratch.steps / 4 <= begun.steps <= 1.5 * scratch.steps / 4
    assert (begun.backbone, begun.image_size, begun.local_size, begun.encoder_size) == ("resnet18", 96, 48, 96)
    assert {choice.name: choice.why for choice in table}["steps"].endswith("a quarter of what it takes from scratch")


def test_weights_trained_on_smaller_views_than_they_are_used_on_are_trained_and_used_like_that_again() -> None:
    begins = Begins("resnet18", None, False, 64, 128)
    begun, _ = plan("cpu", 2_000, begins=begins)
    assert (begun.image_size, begun.local_size, begun.export_size, begun.encoder_size) == (64, 32, 128, 128)
    own, _ = plan("cpu", 2_000, {"image_size": "96"}, begins=begins)
    assert (own.image_size, own.export_size, own.encoder_size) == (96, 0, 96)


@given(one=SIZES, other=SIZES)
def test_a_larger_collection_never_gets_less(one: int, other: int) -> None:
    (small, _), (large, _) = plan("cpu", min(one, other)), plan("cpu", max(one, other))
    assert small.memory <= large.memory
    assert small.block <= large.block
    assert small.batch <= large.batch


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("backbone", "vit_tiny_patch16_224", "vit_tiny_patch16_224"),
        ("batch", "48", 48),
        ("memory", "4096", 4096),
        ("block", "100", 100),
        ("momentum", "0.95", 0.95),
        ("steps", "7", 7),
        ("warmup", "3", 3),
        ("temperature_warmup", "3", 3),
        ("teacher_temperature", "0.05", 0.05),
        ("learning_rate", "1e-3", 1e-3),
        ("colour_change", "1", 1.0),
        ("head_norm", "false", False),
        ("global_scale", "0.5,1", (0.5, 1.0)),
    ],
)
def test_each_choice_can_be_overridden_alone(name: str, text: str, value: object) -> None:
    settings, table = plan("cpu", 3000, {name: text})
    assert getattr(settings, name) == value
    assert next(choice.why for choice in table if choice.name == name) == "given"


def test_numbers_that_are_none_are_refused_and_no_clipping_is_kept(tmp_path: Path) -> None:
    for name in ("learning_rate", "clip", "momentum", "weight_decay"):
        with pytest.raises(MasslError, match=f"{name} must be a number"):
            plan("cpu", 3000, {name: "nan"})
    with pytest.raises(MasslError, match="learning_rate must be a number"):
        plan("cpu", 3000, {"learning_rate": "inf"})
    settings, _ = plan("cpu", 3000, {"clip": "inf"})
    write_toml(tmp_path / "config.toml", {"settings": dataclasses.asdict(settings)})
    assert read_settings(tmp_path / "config.toml") == settings


def test_what_depends_on_an_override_follows_it() -> None:
    settings, _ = plan("cpu", 3000, {"memory": "4096", "steps": "200"})
    assert (settings.block, settings.warmup) == (512, 20)


def test_the_cpu_presets_values_all_have_a_reason_of_their_own() -> None:
    assert set(PRESETS["cpu"].reasons) == set(PRESETS["cpu"].values)


def test_a_gpu_with_room_takes_larger_batches_and_compiles_where_the_run_is_long() -> None:
    def chosen(images: int, largest: int, **given: str) -> tuple[int, bool]:
        found = plan("gpu", images, given, compiles=True, largest_batch=largest)[0]
        return found.batch, found.compile

    assert chosen(100_000, 0) == (64, True)
    assert chosen(100_000, 200) == (128, True)
    assert chosen(100_000, 1000) == (256, False)  # 3,906 steps
    assert chosen(2000, 1000) == (128, False)  # 400,000 images seen
    assert chosen(500, 1000) == (64, False)
    assert chosen(100_000, 1000, batch="32", steps="5000") == (32, True)
    assert chosen(100_000, 1000, compile="false", batch="64") == (64, False)
    assert plan("vit-s16-paper", 100_000, largest_batch=1000)[0].batch == 128


def test_a_file_of_settings_says_what_flags_would(tmp_path: Path) -> None:
    settings = plan("cpu", 3000, {"clip": "inf", "head_norm": "false", "global_scale": "0.5,1", "precision": "fp32"})[0]
    write_toml(tmp_path / "run.toml", {"run": {"images": 3000}, "settings": dataclasses.asdict(settings)})
    assert plan("gpu", 100, read_overrides(tmp_path / "run.toml"))[0] == dataclasses.replace(settings, batch=32)
    flat = tmp_path / "flat.toml"
    flat.write_text("learning_rate = 1e-3\nlocal_scale = [0.1, 0.5]\nmean_pooled = true\n")
    assert read_overrides(flat) == {"learning_rate": "0.001", "local_scale": "0.1,0.5", "mean_pooled": "True"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch = 'many'", "batch must be a whole number, not 'many'"),
        ("nothing = 1", "there is no setting 'nothing'"),
        ("[train]\nbatch = 3", r"has a table \[train\]"),
        ("settings = 3", r"stand in a table \[settings\], or in no table"),
        ("batch =", "can't be read as settings"),
        ("batch = [1, 2]", "batch must be a whole number"),
    ],
)
def test_a_file_that_holds_no_settings_says_why(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(MasslError, match=rf"wrong\.toml.*{said}"):
        read_overrides(tmp_path / "wrong.toml")
    with pytest.raises(MasslError, match=r"can't be read as settings: there is no such file"):
        read_overrides(tmp_path / "missing.toml")


@pytest.mark.parametrize(("images", "said"), [(169, True), (170, False)])
def test_few_images_to_adapt_to_are_pointed_out(images: int, said: bool) -> None:
    begins = Begins("vit_small_patch14_dinov2", 14, False, 126, 126)
    lines = concerns(plan("adapt", images, begins=begins)[0], images)
    assert any("are few to adapt an encoder to" in line for line in lines) == said
