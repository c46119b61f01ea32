"""Every setting of a run: its check, its text, and its file."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from massl.core.disk_errors import reason_of
from massl.core.errors import MasslError
from massl.core.regular_files import read_regular

PATCHED = ("vit_", "deit", "test_vit")  # how the names of networks begin whose patches have a size of our choice


@dataclass(frozen=True)
class Settings:
    """A run's settings, complete. The notation in brackets is METHOD's: the paper's."""

    # Network
    backbone: str = "vit_tiny_patch16_224"  # any timm vision transformer
    patch_size: int = 16  # pixels a side
    mean_pooled: bool = False  # embed by the mean of a vision transformer's patches, not by its class token
    drop_path: float = 0.1  # stochastic depth, student only
    head_width: int = 2048  # hidden width of the projection head; its output has 256
    head_norm: bool = False  # batch normalisation in the head
    projection_norm: bool = False  # batch normalisation of what the head puts out: against collapse
    adapter: bool = False  # the backbone stays as it began, and a linear layer on its embeddings learns
    teacher_dim: int = 0  # numbers in an embedding of --teacher; 0: the student's average teaches
    teacher_crops: bool = False  # --teacher sees the student's global views at each step, not whole images once
    export_projection: bool = False  # the encoder embeds by the projection head too, not by the backbone alone
    # Views
    image_size: int = 224  # side of a global view, pixels
    local_size: int = 96  # side of a local view, pixels
    export_size: int = 0  # side of what the encoder takes once it is exported, pixels; 0: image_size
    local_views: int = 10  # [N]
    global_scale: tuple[float, float] = (0.32, 1.0)  # share of the picture's area that a view shows
    local_scale: tuple[float, float] = (0.05, 0.32)
    colour_change: float = 1.0  # strength of colour jitter, greyscale and solarisation; below 1 where colour tells
    # Memory
    memory: int = 131072  # slots [K]
    block: int = 16384  # slots in a stochastic block [P]
    student_temperature: float = 0.1  # [tau_s]
    teacher_temperature_start: float = 0.04  # [tau_t], rises to the next over the warm-up
    teacher_temperature: float = 0.07
    temperature_warmup: int = 0  # steps
    momentum: float = 0.992  # of the student's average, the teacher; rises to 1 over the run
    # Optimiser
    batch: int = 128  # images a step [B]
    steps: int = 1000  # of the whole run
    learning_rate: float = 5e-4  # at a batch of 256; scaled linearly with the batch
    learning_rate_end: float = 1e-6
    warmup: int = 0  # steps over which the learning rate rises
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    clip: float = 3.0  # largest norm of one parameter's gradient
    layer_decay: float = 1.0  # factor of the learning rate from each layer to the one before; 1: none
    frozen_blocks: int = 0  # the first blocks, and what comes before them, that stay as they began; 0: none
    head_only_steps: int = 0  # the first steps, in which the head alone learns
    # Machine
    accumulate: int = 1  # parts that a step's images are cut into: less memory, same gradient without batch norms
    checkpoint_activations: bool = False  # recompute activations in the backward pass: less memory, slower
    compile: bool = False  # torch.compile: minutes at the start, faster steps; dropped where it fails
    precision: str = "bf16"  # bf16, fp16 or fp32: of the networks' activations; parameters and loss are float32
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps; auto is the GPU if there is one
    workers: int = 2  # processes that decode and cut views; 0: none
    batch_timeout: int = 300  # seconds; a batch that takes longer to load ends the run
    augment: str = "loader"  # loader or device: where views get their flips, colours and blur
    decode: str = "loader"  # loader or device: where usual JPEGs are decoded and cut; the loader does all others
    loss: str = "fast"  # fast or plain: the same by its definition, with all [V, B, K] logits in memory, to compare
    seed: int = 0
    log_every: int = 10  # steps
    probe_every: int = 200  # steps between measurements of the encoder: rank, spread, k-NN
    checkpoint_every: int = 0  # steps between checkpoints; 0: one every five minutes
    keep_checkpoints: int = 2  # and the best one besides

    def __post_init__(self) -> None:
        """Refuses values with which a run can't work, naming the setting."""
        positive: tuple[str, ...] = (
            "patch_size",
            "head_width",
            "image_size",
            "local_size",
            "memory",
            "block",
            "batch",
            "steps",
        )
        positive += ("student_temperature", "teacher_temperature_start", "teacher_temperature", "learning_rate", "clip")
        positive += ("log_every", "probe_every", "keep_checkpoints", "accumulate", "batch_timeout")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            endless = field.name == "clip" and value == math.inf  # no clipping
            if isinstance(value, float) and not math.isfinite(value) and not endless:
                raise MasslError(f"{field.name} must be a number, not {value}")
        for name in positive:
            if getattr(self, name) <= 0:
                raise MasslError(f"{name} must be above 0, not {getattr(self, name)}")
        at_least_zero: tuple[str, ...] = ("local_views", "export_size", "temperature_warmup", "warmup", "workers")
        at_least_zero += ("learning_rate_end", "checkpoint_every", "frozen_blocks", "head_only_steps", "teacher_dim")
        for name in (*at_least_zero, "weight_decay"):
            if getattr(self, name) < 0:
                raise MasslError(f"{name} must not be negative, but is {getattr(self, name)}")
        if not 0 <= self.colour_change <= 1:
            raise MasslError(f"colour_change must be from 0 to 1, not {self.colour_change}")
        if not 0 < self.layer_decay <= 1:
            raise MasslError(f"layer_decay must be above 0 and at most 1, not {self.layer_decay}")
        for name in ("momentum", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise MasslError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise MasslError(f"{name} must be two shares of the area, 0 < low <= high <= 1, not {low}, {high}")
        if self.teacher_crops and not self.teacher_dim:
            raise MasslError("teacher_crops needs a --teacher that sees them; give it, or leave teacher_crops out")
        if self.adapter and self.export_projection:
            raise MasslError("an adapter has no projection to export; leave export_projection or --preset adapt out")
        if self.block > self.memory:
            raise MasslError(f"block ({self.block}) must not be larger than memory ({self.memory})")
        check_device_name(self.device)
        if self.augment not in ("loader", "device"):
            raise MasslError(f"augment must be loader or device, not {self.augment!r}")
        if self.decode not in ("loader", "device"):
            raise MasslError(f"decode must be loader or device, not {self.decode!r}")
        if self.decode == "device" and self.augment != "device":
            raise MasslError("decode=device cuts views on the device, which has to change them too; set augment=device")
        if self.decode == "device" and self.adapter:
            raise MasslError("an adapter's views are decoded but a few times; leave decode or --preset adapt out")
        if self.loss not in ("fast", "plain"):
            raise MasslError(f"loss must be fast or plain, not {self.loss!r}")
        if self.precision not in ("bf16", "fp16", "fp32"):
            raise MasslError(f"precision must be bf16, fp16 or fp32, not {self.precision!r}")
        for name in ("image_size", "local_size", "export_size"):
            if self.backbone.startswith(PATCHED) and getattr(self, name) % self.patch_size:
                raise MasslError(f"{name} ({getattr(self, name)}) must be a multiple of patch_size ({self.patch_size})")

    @property
    def encoder_size(self) -> int:
        """Side of what the encoder takes once it is exported, in pixels."""
        return self.export_size or self.image_size


def check_device_name(name: str) -> None:
    """Raises a `MasslError` unless `name` is one that the setting `device` takes, whether it is there or not."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", name):
        raise MasslError(f"there is no device {name!r}; choose auto, cpu, cuda, cuda:N or mps")


# What a run that goes on may have otherwise than it began: how it is computed, and how long it is.
CHANGEABLE = (
    "device", "workers", "accumulate", "checkpoint_activations", "precision", "augment", "decode", "compile", "steps",
)  # fmt: skip


class UnknownSetting(MasslError):
    """A setting that there is not: wrong usage."""

    exit_code = 2


def parse_setting(name: str, text: str) -> object:
    """The value of a setting that is given as text.

    Raises:
        MasslError: there is no such setting, or the text is no such value.
    """
    types_by_name = typing.get_type_hints(Settings)
    if name not in types_by_name:
        raise UnknownSetting(f"there is no setting {name!r}; the settings are {', '.join(types_by_name)}")
    kind = types_by_name[name]
    try:
        if kind in (int, float):
            return kind(text)
        if kind is str:
            return text
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        low, high = (float(part) for part in text.split(","))
        return low, high
    except (ValueError, KeyError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "two numbers, as 0.3,1.0")
        raise MasslError(f"{name} must be {wanted}, not {text!r}") from None


def read_overrides(path: Path) -> dict[str, str]:
    """Settings from a TOML file, in the text that `plan` takes: those of its table `settings`, or of none.

    A run's `config.toml` is such a file.

    Raises:
        MasslError: it can't be read, or holds something that is no setting.
    """
    try:
        tables = tomllib.loads(read_regular(path).decode())
    except OSError as error:
        raise MasslError(f"{path} can't be read as settings: {reason_of(error, 'there is no such file')}") from None
    except ValueError as error:
        raise MasslError(f"{path} can't be read as settings: {error}") from None
    settings = tables.get("settings", tables)
    if not isinstance(settings, dict):
        raise MasslError(f"{path}: settings stand in a table [settings], or in no table")
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            raise MasslError(f"{path} has a table [{name}]; settings stand in [settings], or in no table")
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            parse_setting(name, text)
        except MasslError as error:
            raise type(error)(f"{path}: {error}") from None
        found[name] = text
    return found


def write_toml(path: Path, tables: Mapping[str, Mapping[str, object]]) -> None:
    """Writes tables of numbers, strings and pairs as TOML."""
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")


def read_settings(path: Path) -> Settings:
    """Reads the `[settings]` table of a run's `config.toml`.

    Raises:
        MasslError: the file is missing, no TOML, or has other settings than this version knows.
    """
    if not path.exists():
        raise MasslError(f"{path.parent} holds no run; give the folder that `massl train` wrote")
    try:
        values = tomllib.loads(read_regular(path).decode())["settings"]
        resolved: dict[str, typing.Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Settings(**resolved)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise MasslError(f"{path} is not a run configuration that this version can read: {error}") from None
