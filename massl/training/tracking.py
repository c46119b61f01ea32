"""Where a run's figures go: `metrics.jsonl` and TensorBoard always, Weights & Biases or MLflow where asked for."""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import importlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from massl.core.errors import MasslError
from massl.settings import Settings

TRACKERS = ("wandb", "mlflow")
_HARMLESS = {"entity", "project"}  # settings of W&B, as `wandb init` leaves them in a folder


class Tracker(Protocol):
    """Takes the figures of a step."""

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called once a logged step, in order."""
        ...


@dataclasses.dataclass(frozen=True)
class RunLog:
    """A run's open logs; none where nothing is to be written."""

    lines: TextIO | None = None
    board: SummaryWriter | None = None
    hosted: Tracker | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """The figures of a step, to all of them."""
        told = finite_or_none(metrics)
        finite = {name: value for name, value in told.items() if value is not None}
        if self.lines:
            self.lines.write(json.dumps(told) + "\n")
            self.lines.flush()
        for name, value in finite.items():
            if self.board:
                self.board.add_scalar(name, value, step)
        if self.hosted:
            self.hosted(step, finite)

    def show(self, name: str, picture: Tensor, step: int) -> None:
        """A picture, uint8 `[3, H, W]`, to TensorBoard."""
        if self.board:
            self.board.add_image(name, picture, step)


def finite_or_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The same, but None for what is not finite: JSON has no such numbers."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


@contextlib.contextmanager
def track(out: Path, settings: Settings, start: int, tracker: str = "", silent: bool = False) -> Iterator[RunLog]:
    """Opens the run's logs in the folder `out`, for a run that goes on at step `start`.

    `metrics.jsonl` loses the lines that a killed run wrote after its last checkpoint: they are about to be written
    again. What is not finite stands there as null.

    Args:
        out: the run's folder.
        settings: of the run; the hosted trackers show them.
        start: the step from which on figures will come.
        tracker: `wandb` or `mlflow`, besides; their own environment variables say where to.
        silent: write nothing, as ranks other than the first.

    Raises:
        MasslError: the tracker is not installed or does not start.
    """
    if silent:
        yield RunLog()
        return
    path = out / "metrics.jsonl"
    _cut(path, start)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(path.open("a", encoding="utf-8"))
        board = stack.enter_context(SummaryWriter(str(out), purge_step=start + 1 if start else None))
        hosted = stack.enter_context(_hosted(tracker, out, settings)) if tracker else None
        yield RunLog(log, board, hosted)


@contextlib.contextmanager
def _hosted(tracker: str, out: Path, settings: Settings) -> Iterator[Tracker]:
    if tracker not in TRACKERS:
        raise MasslError(f"there is no tracker {tracker!r}; choose one of {', '.join(TRACKERS)}")
    try:
        package: Any = importlib.import_module(tracker)
    except ImportError:
        raise MasslError(f"--track {tracker} needs another package; run: pip install 'massl[{tracker}]'") from None
    if tracker == "wandb":
        _check_workspace(Path.cwd())
    values, name = dataclasses.asdict(settings), out.resolve().name
    its_errors = package.errors.Error if tracker == "wandb" else package.exceptions.MlflowException
    try:
        yield from (_wandb if tracker == "wandb" else _mlflow)(package, out, name, values)
    except its_errors as error:
        raise MasslError(f"{tracker} failed: {' '.join(str(error).split())[:200]}") from error


def _check_workspace(folder: Path) -> None:
    """Refuses W&B's own file of settings in the working folder where it decides more than whose project it is.

    The folder may be somebody else's, and the file could have figures, and the key to the account, sent to them.
    """
    for path in (folder / "wandb" / "settings", folder / ".wandb" / "settings"):
        if not path.exists():
            continue
        parser = configparser.ConfigParser()
        try:
            parser.read(path)
            keys = sorted({key for section in [parser.default_section, *parser.sections()] for key in parser[section]})
        except (OSError, ValueError, configparser.Error):
            keys = ["what can't be read"]
        if not set(keys) <= _HARMLESS:
            refused = ", ".join(key for key in keys if key not in _HARMLESS)
            raise MasslError(
                f"{path} sets {refused}, and may be somebody else's; set it by a variable (as WANDB_BASE_URL) or in "
                "your own file of settings for W&B, and take it out there"
            )


def _wandb(wandb: Any, out: Path, name: str, values: dict[str, Any]) -> Iterator[Tracker]:
    identity = out / "wandb-run.txt"  # so that the curves of a resumed run go on, and those of no other
    earlier = identity.read_text(encoding="utf-8") if identity.exists() else None
    run = wandb.init(
        project="massl", id=earlier, name=name, resume="allow", dir=str(out), config=values,
        settings=wandb.Settings(silent=True, console="off"),  # as standard output carries data only
    )  # fmt: skip
    identity.write_text(run.id, encoding="utf-8")
    try:
        yield lambda step, metrics: run.log(dict(metrics), step=step)
    finally:
        run.finish()


def _mlflow(mlflow: Any, out: Path, name: str, values: dict[str, Any]) -> Iterator[Tracker]:
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{out.resolve()}/mlflow.db")
    identity = out / "mlflow-run.txt"  # so that a resumed run goes on in the same place
    earlier = identity.read_text(encoding="utf-8") if identity.exists() else None
    mlflow.set_experiment("massl")
    with mlflow.start_run(run_id=earlier, run_name=name) as run:
        if not earlier:
            identity.write_text(run.info.run_id, encoding="utf-8")
            mlflow.log_params(values)
        yield lambda step, metrics: mlflow.log_metrics(dict(metrics), step=step)


def _cut(path: Path, step: int) -> None:
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
