"""How a preset, the weights, the number of images and the machine settle what a person leaves open, by rules."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from massl.core.errors import MasslError
from massl.presets import AUTHORS, PAPER_WARMUPS, PRESETS
from massl.settings import PATCHED, Settings, parse_setting

COMPILED_FROM = 4000  # steps of a run on a GPU that repay the minutes which compiling takes

ENOUGH_STEPS = 3000  # of a run, below which a batch is not made larger
FEW_TO_ADAPT = 170  # images of the smallest set on which it was measured, docs/measurements/adapting.md
FEW_TO_TEACH = 300  # images of the smallest set on which it was measured, docs/measurements/teaching.md
ADAPTING_STEPS = 400  # of an adapter, whatever the number of images
GIVEN = "given"  # why a setting is as a person asked for
FEW = 10_000  # images below which a collection is small


@dataclass(frozen=True)
class Begins:
    """What weights are for that a run begins with."""

    backbone: str
    patch_size: int | None
    mean_pooled: bool
    image_size: int
    export_size: int

    @property
    def settled(self) -> dict[str, object]:
        """The settings that they leave no choice about."""
        patch = {} if self.patch_size is None else {"patch_size": self.patch_size}
        return {"backbone": self.backbone, **patch, "mean_pooled": self.mean_pooled}


@dataclass(frozen=True)
class ResolvedSetting:
    """One resolved setting and why it has that value."""

    name: str
    value: object
    why: str


@dataclass(frozen=True)
class _Case:
    """What `plan` is given, the overrides as values."""

    preset: str
    images: int
    given: Mapping[str, object]
    epochs: int | None
    precision: str
    workers: int
    begins: Begins | None
    augment: str
    compiles: bool
    largest_batch: int
    teacher_dim: int


# The rules of `plan`: each yields a setting, its value, and where that comes from. Of several for one setting the first
# decides. A rule sees in `chosen` what the rules before it decided.
_Chosen = Mapping[str, ResolvedSetting]
_Rules = Callable[[_Case, _Chosen], Iterator[ResolvedSetting]]


def _value(chosen: _Chosen, name: str) -> typing.Any:
    return chosen[name].value if name in chosen else getattr(Settings, name)


def _settled_by_the_weights(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    for name, value in case.begins.settled.items() if case.begins else ():
        if (asked := case.given.get(name, value)) != value:
            raise MasslError(f"the weights of --init are for {name}={value}, not {asked}; leave one of them out")
        yield ResolvedSetting(name, value, "of the weights that it begins with")


def _of_the_teacher(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    """What a network needs that learns from a frozen teacher."""
    if (asked := case.given.get("teacher_dim")) and asked != case.teacher_dim:
        raise MasslError(f"teacher_dim ({asked}) comes from the teacher; give --teacher, and leave teacher_dim out")
    if not case.teacher_dim:
        return
    yield ResolvedSetting("teacher_dim", case.teacher_dim, "of --teacher")
    taught: dict[str, tuple[object, str]] = {
        "local_views": (0, "the teacher saw whole images, and small parts of them show something else"),
        "global_scale": ((0.4, 1.0), "as above"),
        "export_projection": (True, "the projection is what was matched to the teacher"),
        "projection_norm": (False, "a frozen teacher can't collapse"),
        "drop_path": (0.0, "the teacher's answers are the same at each step"),
        "teacher_temperature": (0.05, "fixed: the teacher is as good at the first step as at the last"),
        "teacher_temperature_start": (0.05, "the same from the start"),
        "momentum": (0.0, "the average teaches nothing: it follows the network, and at the end holds its last steps"),
    }
    if case.given.get("teacher_crops"):
        taught["local_views"] = (0, "networks with batch normalisation can't learn from them here")
        del taught["global_scale"]  # the teacher sees what the student sees
    for name, (value, why) in taught.items():
        if name not in case.given:
            yield ResolvedSetting(name, value, why)


def _given(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    for name, value in case.given.items():
        yield ResolvedSetting(name, value, GIVEN)


def _batch_of_the_gpu(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    """The larger of two batches that a GPU is busier with, where its memory holds it and steps enough are left."""
    preset = PRESETS[case.preset]
    if not preset.batches:
        return
    seen = preset.seen // (4 if case.begins else 1)
    seen = min(200 * case.images, seen) if case.epochs is None else case.epochs * case.images
    for batch in sorted(preset.batches, reverse=True):
        if batch <= case.largest_batch and seen // batch >= ENOUGH_STEPS:
            yield ResolvedSetting(
                "batch", batch, f"a GPU is busier with more; at least {ENOUGH_STEPS:,} steps are left"
            )


def _suited_to_the_weights(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    begins = case.begins
    if begins is None:
        return
    if "adapter" in PRESETS[case.preset].values:
        yield ResolvedSetting("image_size", begins.export_size, "what the encoder that it begins with takes")
        return
    if "image_size" not in case.given:
        yield ResolvedSetting("image_size", begins.image_size, "what the weights that it begins with were trained at")
        # Smaller views at a quarter of the work, larger pictures for the encoder: Touvron et al., "Fixing the
        # train-test resolution discrepancy", NeurIPS 2019, as views show parts of a picture enlarged.
        if begins.export_size != begins.image_size:
            yield ResolvedSetting("export_size", begins.export_size, "what the encoder that it begins with takes")
        yield ResolvedSetting("local_size", begins.image_size // 2, "half of image_size")
    rate: typing.Any = PRESETS[case.preset].values.get("learning_rate", Settings.learning_rate)
    yield ResolvedSetting("learning_rate", rate / 4, "a quarter of the preset's: what is known is kept")


def _of_the_preset(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    preset = PRESETS[case.preset]
    for name, value in preset.values.items():
        yield ResolvedSetting(name, value, preset.reasons.get(name, f"preset {case.preset}"))


def _usual_batch(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    if case.images < FEW:
        why = f"below {FEW:,} images, more steps rather than larger ones: each image is seen as often"
        yield ResolvedSetting("batch", 32, why)
    yield ResolvedSetting("batch", 64, f"from {FEW:,} images on; above, each step would cost more than it teaches")


def _made_to_fit(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    """What takes the place of what was decided, where that would not work."""
    backbone = _value(chosen, "backbone")
    if "backbone" in case.given and "patch_size" not in case.given and (named := re.search(r"patch(\d+)", backbone)):
        yield ResolvedSetting("patch_size", int(named[1]), f"as {backbone} is called")
    patch = _value(chosen, "patch_size")
    for name in ("image_size", "local_size"):
        size = _value(chosen, name)
        if name not in case.given and backbone.startswith(PATCHED) and size % patch:
            fitting = patch * math.ceil(size / patch)
            yield ResolvedSetting(name, fitting, f"the preset's {size}, made a multiple of patch_size")
    # An adapter is judged by some of the images, which it does not learn from.
    most = max(2, case.images * 3 // 4) if _value(chosen, "adapter") else case.images
    if _value(chosen, "batch") > most:
        yield ResolvedSetting("batch", most, f"there are only {case.images} images")


def _length(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    batch = _value(chosen, "batch")
    if batch < 1:
        raise MasslError(f"batch must be above 0, not {batch}")
    each = case.images // batch
    preset = PRESETS[case.preset]
    epochs = preset.epochs if case.epochs is None else case.epochs
    if _value(chosen, "adapter") and epochs is None:
        yield ResolvedSetting("steps", ADAPTING_STEPS, "after as many, trials changed no more")
    if epochs is not None:
        yield ResolvedSetting("steps", epochs * each, f"{epochs} passes over the images, {each} steps each")
        return
    seen = preset.seen // (4 if case.begins else 1)
    epochs = max(1, min(200, round(seen / case.images)))
    why = f"{epochs} passes over the images, {each} steps each: about {seen:,} images seen, from 1 to 200 passes"
    quarter = ", a quarter of what it takes from scratch" if case.begins else ""
    yield ResolvedSetting("steps", epochs * each, why + quarter)


def _memory(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    half = 2 ** int(math.log2(max(2, case.images / 2)))
    of_a_frozen_teacher = _value(chosen, "adapter") or _value(chosen, "teacher_dim")
    if of_a_frozen_teacher:
        yield ResolvedSetting("memory", max(16, min(half, 4096)), "the power of two below half the images, up to 4,096")
    # Below 2,048 slots the blocks are so small that runs on 500 photographs collapsed, copies of an image or not.
    slots = max(min(half, 65536), 2048)
    yield ResolvedSetting("memory", slots, "the power of two below half the images, from 2,048 to 65,536")
    if of_a_frozen_teacher:
        block = min(_value(chosen, "memory"), max(64, _value(chosen, "memory") // 8))
        yield ResolvedSetting("block", block, "an eighth of the memory, as in the paper, and at least 64")
    yield ResolvedSetting("block", max(1, _value(chosen, "memory") // 8), "an eighth of the memory, as in the paper")


def _warm_ups(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    steps = _value(chosen, "steps")
    if case.preset in PAPER_WARMUPS:
        each = case.images // _value(chosen, "batch")
        rate, temperature = PAPER_WARMUPS[case.preset]
        yield ResolvedSetting("warmup", min(rate * each, steps), f"{rate} epochs, as the authors")
        yield ResolvedSetting(
            "temperature_warmup", min(temperature * each, steps), f"{temperature} epochs, as the authors"
        )
    yield ResolvedSetting("warmup", steps // 10, "a tenth of the steps")
    yield ResolvedSetting("temperature_warmup", steps // 5, "a fifth of the steps")


def _momentum(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    # The teacher should average over a share of the run; faster than 0.99 it followed the student into collapse.
    momentum = round(min(0.996, max(0.99, 1 - 20 / max(_value(chosen, "steps"), 1))), 4)
    why = "the teacher averages about a twentieth of the run at its start, from 0.99 to 0.996"
    yield ResolvedSetting("momentum", momentum, why)


def _of_this_machine(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    yield ResolvedSetting("precision", case.precision, "what this machine multiplies fastest")
    yield ResolvedSetting("workers", case.workers, "one a core")
    if _value(chosen, "decode") == "device":
        yield ResolvedSetting("augment", "device", "views are cut there")
    where = "in batches on the device" if case.augment == "device" else "by the processes that decode"
    yield ResolvedSetting("augment", case.augment, f"flips, colours and blur {where}")
    if case.compiles and _value(chosen, "steps") >= COMPILED_FROM:
        yield ResolvedSetting("compile", True, f"from {COMPILED_FROM:,} steps on faster ones repay the slow start")


def _how_often_it_is_watched(case: _Case, chosen: _Chosen) -> Iterator[ResolvedSetting]:
    steps = _value(chosen, "steps")
    yield ResolvedSetting("log_every", max(1, min(10, steps // 20)), "at least twenty lines a run")
    yield ResolvedSetting(
        "probe_every", max(1, min(500, steps // 10)), "ten measurements a run, and one every 500 steps"
    )


_DECIDE: tuple[_Rules, ...] = (
    _settled_by_the_weights, _of_the_teacher, _given, _suited_to_the_weights, _batch_of_the_gpu, _of_the_preset,
    _usual_batch,
)  # fmt: skip
_SIZE: tuple[_Rules, ...] = (_length, _memory, _warm_ups, _momentum, _of_this_machine, _how_often_it_is_watched)


def plan(
    preset: str,
    images: int,
    overrides: Mapping[str, str] | None = None,
    epochs: int | None = None,
    precision: str = "bf16",
    workers: int = 2,
    begins: Begins | None = None,
    augment: str = "loader",
    compiles: bool = False,
    largest_batch: int = 0,
    teacher_dim: int = 0,
) -> tuple[Settings, list[ResolvedSetting]]:
    """Resolves a preset for a collection.

    The paper's recipe is for 1.28 million images and stalls or collapses on small sets: a memory larger than the
    collection holds each image many times over, and warm-ups counted in epochs never end. So K, P, momentum,
    warm-ups and the number of epochs come from the number of images.

    Args:
        preset: a key of `PRESETS`.
        images: how many images there are.
        overrides: setting to text, as given by `--set name=value`.
        epochs: passes over the images, instead of the preset's.
        precision: `bf16` or `fp32`, what the machine does best.
        workers: decoding processes.
        begins: what the weights are for that the run begins with, if it does not begin at random.
        augment: `loader` or `device`, what this machine does fastest.
        compiles: whether this machine can compile networks for its GPU.
        largest_batch: images of a step that the memory of its GPUs holds; 0: not known.
        teacher_dim: numbers in an embedding of the frozen teacher; 0: there is none.

    Returns:
        The settings, and a table of what was chosen and why.

    Raises:
        MasslError: an unknown preset or setting, or a value that can't be used.
    """
    if preset not in PRESETS:
        raise MasslError(f"there is no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    if images < 2:
        raise MasslError(f"{images} image{'s' * (images != 1)}: at least 2 are needed to compare images")
    given = {name: parse_setting(name, text) for name, text in (overrides or {}).items()}
    case = _Case(
        preset, images, given, epochs, precision, workers, begins, augment, compiles, largest_batch, teacher_dim
    )
    chosen: dict[str, ResolvedSetting] = {}
    for rules in _DECIDE:
        for choice in rules(case, chosen):
            chosen.setdefault(choice.name, choice)
    for choice in _made_to_fit(case, chosen):
        chosen[choice.name] = choice
    for rules in _SIZE:
        for choice in rules(case, chosen):
            chosen.setdefault(choice.name, choice)
    if teacher_dim and (_value(chosen, "adapter") or begins):
        raise MasslError("--teacher teaches a network from random weights; leave --init and --preset adapt out")
    if _value(chosen, "adapter") and begins is None:
        raise MasslError("an adapter needs weights to begin with; leave --init none and adapter out, or one of them")
    try:
        settings = Settings(**{choice.name: choice.value for choice in chosen.values()})  # type: ignore[arg-type]
    except TypeError as error:
        raise MasslError(str(error)) from error
    fields = [field.name for field in dataclasses.fields(Settings)]
    for name in fields:
        why = "the authors'" if name in AUTHORS else "default"
        chosen.setdefault(name, ResolvedSetting(name, getattr(settings, name), why))
    return settings, [chosen[name] for name in fields]


def differing(table: typing.Iterable[ResolvedSetting], preset: str) -> list[ResolvedSetting]:
    """Those choices of `plan` that are neither the preset's nor, where it says nothing, the default."""
    usual = {field.name: field.default for field in dataclasses.fields(Settings)} | dict(PRESETS[preset].values)
    return [choice for choice in table if choice.value != usual[choice.name]]


def concerns(settings: Settings, images: int) -> list[str]:
    """What a person should know before a run of these settings on so many images starts, a line each."""
    s = settings
    said = []
    if s.memory > images and not s.teacher_dim:
        said.append(
            f"the memory ({s.memory:,} slots) is larger than the collection ({images:,} images): it holds each image "
            f"about {s.memory / images:.0f} times, as seen at different steps"
        )
    if s.batch == images:
        said.append(f"a batch holds all {images:,} images; more images would teach more")
    if s.adapter and images < FEW_TO_ADAPT:
        said.append(f"{images:,} images are few to adapt an encoder to; gains were measured from {FEW_TO_ADAPT} on")
    if s.teacher_dim and images < FEW_TO_TEACH:
        said.append(f"{images:,} images are few to teach a network with; figures were taken from {FEW_TO_TEACH} on")
    if s.local_size > s.image_size and s.local_views:
        said.append(f"local views ({s.local_size} px) are larger than global ones ({s.image_size} px)")
    return said
