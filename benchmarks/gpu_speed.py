"""The checks of `gpu.py` for what should be fast."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import loss as loss_script
import numpy as np
import packed as packed_script
import torch
from gpu_cases import PICTURES, RATES, Bench, Outcome, Skipped, image_folder, make_learner, random_views, run_settings
from rates import pace
from torch.profiler import ProfilerActivity

from massl.core.images.decoding import decode
from massl.data.sources import find_source
from massl.method.views import EndlessBatches, Views
from massl.training.cost import operations_of_an_image
from massl.training.learner import ACTIVATIONS
from massl.training.loading import batches, make_loader, plan_loading
from massl.training.utilisation import matrix_rate


def rate(bench: Bench) -> Outcome:
    """Steps at several batches, without and with torch.compile; the number is the best utilisation."""
    device = bench.device
    kind = ACTIVATIONS[run_settings(bench).precision]
    peak_rate = matrix_rate(device, kind, 128 if bench.toy else 0)
    best = (0.0, "no batch ran")
    cases = [("4", False)] if bench.toy else [("64", False), ("128", False), ("256", False), ("128", True)]
    for batch, compiled in cases:
        began = time.perf_counter()
        learner = make_learner(bench, batch=batch, compile=str(compiled).lower())
        views = random_views(learner.settings, device)
        found = pace(partial(learner.step, views, RATES), device, 2 if bench.toy else 10, 1 if bench.toy else 3)
        speed = int(batch) / found.median
        each = operations_of_an_image(learner.settings)
        used = speed * each / peak_rate if each else 0.0
        bench.tell({"batch": int(batch), "compiled": compiled, "images_per_second": speed, "step_seconds": found.median,
                    "peak_bytes": found.peak, "utilisation": used, "start_seconds": time.perf_counter() - began
                    })  # fmt: skip
        said = f"{used:.0%} at a batch of {batch}{' compiled' if compiled else ''}: {speed:,.0f} images/s"
        best = max(best, (used, said))
        del learner, views
    return Outcome(best[0] > (0 if bench.toy else 0.1), best[0], best[1])


def kernels(bench: Bench) -> Outcome:
    """The profiler's fifteen longest kernels of two steps; the number is their share of all."""
    cuda = bench.device.type == "cuda"
    learner = make_learner(bench)
    views = random_views(learner.settings, bench.device)
    learner.step(views, RATES, 0)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        for number in (1, 2):
            learner.step(views, RATES, number)
        if cuda:
            torch.cuda.synchronize()
    name = "self_device_time_total" if cuda else "self_cpu_time_total"
    # On a GPU its own kernels alone, not what asked for them.
    events: list[Any] = [event for event in seen.key_averages() if not cuda or "CUDA" in str(event.device_type)]
    events.sort(key=lambda event: -getattr(event, name))
    total = sum(getattr(event, name) for event in events)
    for event in events[:15]:
        taken = getattr(event, name)
        bench.tell({"kernel": event.key[:120], "microseconds": taken, "calls": event.count, "share": taken / total})
    share = sum(getattr(event, name) for event in events[:15]) / total
    return Outcome(total > 0, share, f"the longest takes {getattr(events[0], name) / total:.0%}: {events[0].key[:80]}")


def loader(bench: Bench) -> Outcome:
    """Views by the loader alone, nothing learnt; the number is images a second."""
    settings = run_settings(bench, augment="device", batch="8" if bench.toy else "64")
    source, _ = find_source(image_folder(bench))
    count = 2 if bench.toy else 40
    loading = plan_loading(settings)
    keys = EndlessBatches(len(source), settings.batch, 0, 0, count + 1)
    arriving = batches(make_loader(Views(source, settings), keys, loading), 60, lambda: False)
    next(arriving)  # until the processes have begun
    began = time.perf_counter()
    for _ in arriving:
        pass
    speed = count * settings.batch / (time.perf_counter() - began)
    said = f"{speed:,.0f} images/s by {loading.workers} workers{'; ' + loading.note if loading.note else ''}"
    return Outcome(speed > 0, speed, said)


def packed(bench: Bench) -> Outcome:
    """An experiment: one forward pass for views of two sizes; the number is its least time over that of two passes."""
    settings = run_settings(bench)
    backbone, views = packed_script.prepare(settings.backbone, settings.batch, bench.device, settings)
    few = [group[:, :2] for group in views]
    forms = list(packed_script.FORMS)
    off = {form: packed_script.apart(backbone, few, packed_script.FORMS[form]) for form in forms}
    taken = packed_script.times(backbone, views, 1 if bench.toy else 5, ACTIVATIONS[settings.precision], forms)
    whole = min(taken["two passes"])
    shares = {form: min(taken[form]) / whole for form in forms}
    for form in forms:
        bench.tell({"form": form, "outputs_off": off[form][0], "gradients_off": off[form][1], "time": shares[form]})
    passed = max(outputs for outputs, _ in off.values()) < 1e-4
    said = ", ".join(f"{form} {share:.2f}" for form, share in shares.items())
    return Outcome(passed, min(shares.values()), f"{said} of the time of two passes")


def loss_cost(bench: Bench) -> Outcome:
    """The loss beside the plain form and its best; the number is its time over the plain form's."""
    if bench.toy:
        size = {"batch": 2, "views": 3, "slots": 96, "block": 16}
    else:
        size = {"batch": 64, "views": 12, "slots": 131072, "block": 16384}
    args = argparse.Namespace(**size, device=bench.device.type, half=True)
    found = {}
    for form in loss_script.FORMS:
        found[form] = loss_script.measure(form, args)
        bench.tell({"form": form, **found[form]})
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    ours, plain, tidy = found["streamed"], found["plain"], found["tidy"]
    time_, peak = ours["seconds"] / plain["seconds"], ours["peak"] / plain["peak"] if plain["peak"] else 0.0
    passed = bench.toy or (time_ <= 1 and peak <= 0.2)
    beside_best = ours["seconds"] / tidy["seconds"]
    said = f"{time_:.2f} of the plain form's time, {beside_best:.2f} of its best's, {peak:.2f} of its peak"
    return Outcome(passed, time_, said)


def indexing(bench: Bench) -> Outcome:
    """Embedding by ONNX Runtime on CUDA and search by FAISS on the GPU; the number is the least cosine with the CPU."""
    try:
        import faiss
        import onnxruntime

        from indexer import Encoder
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed") from None
    encoder = Encoder.load()
    source, _ = find_source(PICTURES / "flag")
    pixels = np.stack([encoder.prepare(decode(source.read(index)).picture) for index in range(4 if bench.toy else 30)])
    began = time.perf_counter()
    ours = encoder.embed(pixels)
    seconds = time.perf_counter() - began
    alone = onnxruntime.InferenceSession(str(encoder.path), providers=["CPUExecutionProvider"])
    theirs = alone.run(["embedding"], {"pixels": pixels})[0]
    least = float((ours * theirs).sum(1).min())
    index = faiss.IndexFlatIP(encoder.dim)
    index.add(theirs)
    _, wanted = index.search(theirs, 1)
    number = getattr(faiss, "get_num_gpus", lambda: 0)()
    if number and bench.device.type == "cuda":
        _, found = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index).search(theirs, 1)
        assert (found == wanted).all(), "FAISS finds others on the GPU"
    where = f"{encoder.device}, FAISS on {'the GPU' if number else 'the CPU'}; {len(pixels) / seconds:,.0f} images/s"
    if bench.device.type == "cuda" and encoder.device != "cuda" and not number:
        raise Skipped(f"neither onnxruntime-gpu nor faiss-gpu is installed ({where}, cosine {least:.4f})")
    return Outcome(least > 0.99, least, f"cosine at least {least:.4f} on {where}")
