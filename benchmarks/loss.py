#!/usr/bin/env python3
"""Time and peak memory of the loss, forward and backward, beside the plain form with all its logits.

    benchmarks/loss.py [--batch 16] [--views 12] [--slots 131072] [--block 16384] [--device cpu|cuda] [--half]

Each form runs in a fresh process, the forms in turn, as often as --repeat says; the last line of each table is the
ratio to the plain form. "Peak" is what a step adds to the inputs at most: on the CPU the process's high-water mark
(Linux), on a GPU the allocator's. `plain` takes a log-softmax for every pair of views, as the authors do; `tidy` is the
plain form at its best, with one log-softmax a view and the targets added up first.

`--slots 1048576 --only streamed` shows what a memory of a million slots costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from massl.method.loss import massl_loss, plain_loss

WIDTH = 256
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
STEPS = 3


def streamed_loss(student: Tensor, teacher: Tensor, memory: Tensor, permutation: Tensor, *rest: float) -> Tensor:
    return massl_loss(student, teacher, memory, permutation, *rest).loss  # type: ignore[arg-type]


def tidy_loss(
    student: Tensor, teacher: Tensor, memory: Tensor, permutation: Tensor, block: int, tau_s: float, tau_t: float
) -> Tensor:
    shuffled = memory[permutation]
    total = student.new_zeros(())
    for rows in shuffled.split(block):
        target = functional.softmax(teacher @ rows.T / tau_t, dim=-1)
        logs = functional.log_softmax(student @ rows.T / tau_s, dim=-1)
        total = total - (target.flip(0) * logs[:2]).sum() - (target.sum(0) * logs[2:]).sum()
    return total / (-(-len(memory) // block) * student.shape[1] * (2 * len(student) - 2))


FORMS: dict[str, Callable[..., Tensor]] = {"plain": plain_loss, "tidy": tidy_loss, "streamed": streamed_loss}


def measure(form: str, args: argparse.Namespace) -> dict[str, float]:
    """One process's figures: median seconds of a step after the first, peak MiB above the inputs, the loss."""
    device = torch.device(args.device)
    generator = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> Tensor:
        return functional.normalize(torch.randn(*shape, WIDTH, generator=generator), dim=-1).to(device)

    def step(slots: int, block: int) -> float:
        student.grad = None
        order = permutation if slots == args.slots else torch.arange(slots, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.half):
            loss = FORMS[form](student, teacher, memory[:slots], order, block, STUDENT_TEMPERATURE, TEACHER_TEMPERATURE)
        loss.backward()
        return float(loss.detach())  # waits for the device

    memory = unit(args.slots)
    student, teacher = unit(args.views, args.batch).requires_grad_(), unit(2, args.batch)
    permutation = torch.randperm(args.slots, generator=generator).to(device)
    step(min(args.slots, 512), 128)  # threads, libraries and kernels are no part of it
    before = _reset_peak(device)
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        loss = step(args.slots, args.block)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")
    return {"seconds": statistics.median(seconds[1:]), "peak": (peak - before) / 2**20, "loss": loss}


def _reset_peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    return _status("VmRSS")


def _status(name: str) -> int:
    """A figure of this process in bytes, from the kernel."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measures the forms in turn, or one of them when called by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--slots", type=int, default=131072)
    parser.add_argument("--block", type=int, default=16384)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--half", action="store_true", help="under autocast, as training in bf16 is")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=list(FORMS))
    parser.add_argument("--measure", choices=list(FORMS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    forms = [args.only] if args.only else list(FORMS)
    runs: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for _ in range(args.repeat):
        for form in forms:
            child = [sys.executable, __file__, *sys.argv[1:], "--measure", form]
            runs[form].append(json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout))

    print(
        f"B = {args.batch}, {args.views} views, K = {args.slots:,}, P = {args.block:,}, D = {WIDTH}, "
        f"{args.device}{', autocast' if args.half else ''}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads; median of {args.repeat} processes (least to most)"
    )
    medians = {}
    for form in forms:
        time_, peak = ([run[key] for run in runs[form]] for key in ("seconds", "peak"))
        medians[form] = (statistics.median(time_), statistics.median(peak))
        print(
            f"{form:<9} {medians[form][0]:7.3f} s ({min(time_):.3f} to {max(time_):.3f})  peak "
            f"{medians[form][1]:8.1f} MiB ({min(peak):.1f} to {max(peak):.1f})  loss {runs[form][0]['loss']:.6f}"
        )
    for form in forms:
        if form != "streamed" and "streamed" in forms:
            ratios = [mine / its for mine, its in zip(medians["streamed"], medians[form], strict=True)]
            print(f"streamed / {form}: time {ratios[0]:.2f}, peak {ratios[1]:.3f}")


if __name__ == "__main__":
    main()
