"""A run as `massl train` is about to begin it or to go on with it: its settings and why, what it takes, its doubts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.options import or_builtin
from cli.terminal import print_json, print_line
from massl.core.files.run_folder import check_new, check_place, describe_run, run_shown_as
from massl.core.images.rendering import BY_COLLECTION, BY_FILE
from massl.core.images.rendering_facts import ShownAs
from massl.core.printable import visible
from massl.data.source_rendering import measured
from massl.data.sources import Source, doubts
from massl.encoder.weights import Initial
from massl.planning import GIVEN, ResolvedSetting, concerns, differing, plan
from massl.presets import PRESETS
from massl.settings import Settings, read_settings
from massl.training.accumulation import check_parts, check_ranks, parts_note
from massl.training.adaptation import origin_of
from massl.training.cost import cost_of, free_space, operations_of_an_image
from massl.training.devices import can_compile, choose_device, decoder_note, unused_gpus
from massl.training.distributed import World
from massl.training.loading import plan_loading, usual_workers
from massl.training.loop import fast_precision
from massl.training.out_of_memory import largest_batch
from massl.training.run_state import EVERY
from massl.training.teaching import Teacher

# What a person who begins a run may want to change. The other settings follow from these.
DECISIVE = ("backbone", "teacher_dim", "image_size", "batch", "steps", "learning_rate", "memory")


@dataclass(frozen=True)
class PlannedRun:
    """What is known of a run before its first step.

    Attributes:
        folder: the run's.
        source: the images.
        settings: all of them.
        table: the settings, each with the reason for its value.
        preset: its name; empty where a run goes on.
        device: the setting as it was asked for.
        world: the ranks that are here.
        ranks: how many will train together, and `ranks_here` of them on this machine.
        resumed: whether it goes on.
        initial: the weights that it begins with.
        teacher: the encoder that it learns from, if it does.
    """

    folder: Path
    source: Source
    settings: Settings
    table: list[ResolvedSetting]
    preset: str
    device: str
    world: World
    ranks: int
    ranks_here: int
    resumed: bool = False
    initial: Initial | None = None
    teacher: Teacher | None = None

    @classmethod
    def going_on(cls, run: Path, source: Source, changed: Mapping[str, Any], to_start: int | None) -> PlannedRun:
        """A run with its own settings, but for `changed` ones.

        Args:
            run: its folder.
            source: the images.
            changed: settings to values; of those in `massl.settings.CHANGEABLE`.
            to_start: how many ranks there would be, where none is started now; None: those that are here.

        Raises:
            MasslError: there is no such run, or no such device.
        """
        settings = replace(read_settings(run / "config.toml"), **changed)
        source.shown_as = run_shown_as(run)
        world = World.join(choose_device(settings.device))
        table = [ResolvedSetting(name, value, "of the run") for name, value in asdict(settings).items()]
        ranks = _ranks(world, to_start)
        teacher = None
        if settings.teacher_dim:
            named = str(describe_run(run).get("teacher"))
            teacher = Teacher(named, or_builtin(named))
        return cls(run, source, settings, table, "", settings.device, world, *ranks, resumed=True, teacher=teacher)

    @classmethod
    def new(
        cls,
        images: Path,
        out: Path | None,
        source: Source,
        preset: str | None,
        overrides: Mapping[str, str],
        epochs: int | None,
        initial: Initial | None,
        teacher: Teacher | None,
        to_start: int | None,
        shown: ShownAs,
    ) -> PlannedRun:
        """A run that begins, see `massl.planning.plan`; in a new folder below `runs` if `out` is left out.

        The images are shown as `shown` says, with limits that are measured now.

        Raises:
            MasslError: the folder holds a run, or can't be made, or settings that can't be used, or the weights to
                begin with can't be used so.
        """
        device = overrides.get("device", Settings.device)
        world = World.join(choose_device(device))
        ranks, ranks_here = _ranks(world, to_start)
        folder = Path(world.share(str(out or _new_folder(images))))
        check_place(folder)
        if world.share((folder / "config.toml").exists()):  # one rank looks: another may have begun
            check_new(folder)
        preset = preset or ("cpu" if world.device.type == "cpu" else "gpu")
        begins = initial.begins if initial else None
        augment = "device" if world.device.type == "cuda" else "loader"
        precision, workers = fast_precision(world.device), usual_workers(ranks_here, world.device.type)
        machine: dict[str, Any] = {"precision": precision, "workers": workers, "augment": augment}
        machine |= {"compiles": can_compile(world.device), "teacher_dim": teacher.dim if teacher else 0}
        settings, table = plan(preset, len(source), overrides, epochs, begins=begins, **machine)
        if world.device.type == "cuda" and PRESETS[preset].batches and "batch" not in overrides:
            largest = largest_batch(settings, world.device, ranks)
            settings, table = plan(
                preset, len(source), overrides, epochs, begins=begins, largest_batch=largest, **machine
            )
        check_ranks(settings, ranks)
        if initial:
            origin_of(initial, settings)  # which refuses what can't be adapted
        # By one rank, as all must see the same.
        told = world.share(measured(source, shown).facts() if world.rank == 0 else {})
        source.shown_as = ShownAs.read(told)
        return cls(
            folder, source, settings, table, preset, device, world, ranks, ranks_here, initial=initial, teacher=teacher
        )

    def notes(self) -> list[str]:
        """What a person should know before it begins, a line each."""
        asked_for_any = self.device in ("auto", "cuda")
        notes = [
            *concerns(self.settings, len(self.source)),
            *doubts(self.source, self.settings.image_size),
            plan_loading(self.settings, self.ranks, self.ranks_here).note,
            unused_gpus(self.world.device, self.ranks_here) if asked_for_any else "",
            parts_note(self.settings, self.ranks),
            decoder_note(self.settings, self.world.device),
        ]
        return [note for note in notes if note]

    def shown_lines(self) -> list[str]:
        """How images of more than 8 bits and stacks are shown, where there are any."""
        shown = self.source.shown_as
        lines = [f"{kind}: {low:,.6g} is black, {high:,.6g} white" for kind, (low, high) in shown.limits.items()]
        if shown.range not in (BY_COLLECTION, BY_FILE):
            lines.append(f"more than 8 bits: {shown.range.replace(':', ' to ')}")
        if shown.channels or shown.plane:
            lines.append(f"stacks: channels {', '.join(shown.channels) or 'first'}, plane {shown.plane or 'first'}")
        return lines

    def show_table(self, whole: bool, on_standard_output: bool = False) -> None:
        """Prints the settings with their reasons: all, or what was given or decided for these images, if it matters."""
        device = self.world.device
        where = f"{self.ranks} times {device.type}" if self.ranks > 1 else str(device)
        title = f"{len(self.source):,} images, on {where}" + (f", preset {self.preset}" if self.preset else "")
        view = Table("setting", "value", "why", title=title, box=None)
        decided = (
            choice for choice in differing(self.table, self.preset) if choice.name in DECISIVE or choice.why == GIVEN
        )
        for choice in self.table if whole else decided:
            view.add_row(choice.name, Text(visible(str(choice.value))), choice.why)
        Console(stderr=not on_standard_output).print(view)

    def print_plan(self, as_json: bool) -> None:
        """Prints what `massl train` would do and what it would take.

        Raises:
            MasslError: it could not begin so.
        """
        settings, ranks, device = self.settings, self.ranks, self.world.device
        notes = self.notes()
        check_ranks(settings, ranks)
        check_parts(settings, ranks, ranks > 1 and device.type == "cuda")
        weights = self.teacher.bytes if self.teacher else 0
        cost, free = cost_of(settings, ranks, device.type, weights), free_space(self.folder)
        kept = 2 * settings.teacher_dim * len(self.source)  # bytes of the teacher's embeddings
        disk = cost.disk + kept
        views = 2 * cost.images_seen if settings.teacher_crops else 0  # that the teacher embeds during the steps
        if disk > free:
            notes.append(f"{self.folder} needs {size(disk)}, and {size(free)} are free there")
        if as_json:
            # JSON has no infinity, which `clip` may be.
            table = {
                choice.name: {"value": None if choice.value == math.inf else choice.value, "why": choice.why}
                for choice in self.table
            }
            about = {"images": len(self.source), "device": str(device), "devices": ranks, "preset": self.preset or None}
            taught = {"teacher": {"name": self.teacher.named, "bytes": kept, "views": views}} if self.teacher else {}
            taken = asdict(replace(cost, disk=disk))
            about |= {**taught, "run": str(self.folder), "shown_as": self.source.shown_as.facts()}
            print_json({**about, "settings": table, "cost": taken, "notes": notes})
            return
        self.show_table(whole=True, on_standard_output=True)
        each = f" on each of {ranks} devices" if ranks > 1 else ""
        memory = f"memory: {size(cost.fixed)}{each}, and what a step keeps of its images, which isn't known beforehand"
        if cost.image is not None and cost.device is not None:
            memory = (
                f"memory: {size(cost.device)}{each}, and temporaries on top: {size(cost.fixed)} whatever the batch, "
                f"and {size(cost.image)} for each of {cost.part:,} images at a time"
            )
        often = f"{settings.checkpoint_every:,} steps" if settings.checkpoint_every else f"{EVERY / 60:.0f} minutes"
        rows = {
            "steps": f"{settings.steps:,}, each on a batch of {settings.batch:,} images; each image is seen about "
            f"{cost.images_seen / len(self.source):,.0f} times",
            "parameters": f"{cost.parameters / 1e6:,.1f} million, the head included",
            "device": memory,
            "checkpoint": f"{size(cost.checkpoint)}, one every {often}, the last "
            f"{settings.keep_checkpoints:,} and the best are kept",
            "disk": f"up to {size(disk)} in {self.folder}, where {size(free)} are free",
            "time": "not known before the run; its first log lines show it",
        }
        if self.teacher:
            rows["teacher"] = (
                f"{self.teacher.named} embeds each of {len(self.source):,} images once, before the first step; the "
                f"embeddings take {size(kept)} until the run ends"
            )
            if settings.teacher_crops:
                rows["teacher"] += f". {self._work_of_the_teacher(views)}"
        if shown := self.shown_lines():
            rows["shown"] = "; ".join(shown)
        print_line("")
        for name, value in rows.items():
            print_line(f"  {name:<12} {value}")
        for note in notes:
            print_line(f"  note: {note}")

    def _work_of_the_teacher(self, views: int) -> str:
        """What the teacher does during the steps, where it sees each view."""
        assert self.teacher
        said = f"It also embeds two views of each image at each step, {views:,} in all"
        own = operations_of_an_image(self.settings, 0)
        whole = operations_of_an_image(self.settings, self.teacher.operations)
        return said if not own or not whole else f"{said}: {1 - own / whole:.0%} of a step's operations"


def size(count: float) -> str:
    """Bytes, in words."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _ranks(world: World, to_start: int | None) -> tuple[int, int]:
    """How many ranks train together, and how many of them on this machine."""
    return (to_start, to_start) if to_start and world.size == 1 else (world.size, world.size_here)


def _new_folder(images: Path) -> Path:
    # Of a list or a shard the name alone, of a pattern what stands before it.
    name = images.resolve().name if images.is_dir() else re.split(r"[{*?\[]", images.stem)[0].strip("-_. ")
    base = Path("runs") / (name or "images")
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder
