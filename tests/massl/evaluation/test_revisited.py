"""Revisited Oxford and Paris: the benchmark's own figures, and ground truths that are not to be trusted."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from massl.core.errors import MasslError
from massl.evaluation.revisited import read_ground_truth, revisited
from tests.massl.evaluation.evaluation_data import LANDMARKS, landmarks

GOLDEN = json.loads(Path(__file__).with_name("evaluation_golden.json").read_text())["revisitop"]


def truth(array: type = list) -> dict[str, Any]:
    """A ground truth as published: names, and for each query its box and three lists of images."""
    _, _, found = landmarks()
    return {
        "imlist": [f"image_{row:06}" for row in range(LANDMARKS)],
        "qimlist": [f"query_{row:06}" for row in range(len(found))],
        "gnd": [{"bbx": [1.5, 2.0, 60.25, 80.0], **{kind: array(rows) for kind, rows in it.items()}} for it in found],
    }


@pytest.mark.parametrize("form", ["json", "pickle", "pickle 2", "arrays", "arrays 2", "arrays 5"])
def test_figures_equal_the_benchmarks_own_script(form: str, tmp_path: Path) -> None:
    path = tmp_path / ("gnd.json" if form == "json" else "gnd_roxford5k.pkl")
    if form == "json":
        path.write_text(json.dumps(truth()))
    else:
        kind, _, protocol = form.partition(" ")
        told = truth(np.array if kind == "arrays" else list)
        path.write_bytes(pickle.dumps(told, protocol=int(protocol) if protocol else None))
    queries, images, _ = landmarks()
    read = read_ground_truth(path)
    assert read.queries[0].box == (1.5, 2.0, 60.25, 80.0)
    found = revisited(queries, images, read)
    for name, wanted in GOLDEN.items():
        assert found[name].map == pytest.approx(wanted["map"], abs=1e-6)
        assert list(found[name].precision_at.values()) == pytest.approx(wanted["precision_at"], abs=1e-6)
    assert found["easy"].queries < len(read.queries)  # some have no easy image, and don't count there


class Bomb:
    def __init__(self, called: Any, argument: Any) -> None:
        self.told = called, (argument,)

    def __reduce__(self) -> Any:
        return self.told


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    for number, called in enumerate((os.mkdir, eval, np.load, np.fromfile, exec)):
        mark = tmp_path / f"mark{number}"
        argument = f"__import__('os').mkdir({str(mark)!r})" if called in (eval, exec) else str(mark)
        path = tmp_path / "gnd.pkl"
        path.write_bytes(pickle.dumps({**truth(), "more": Bomb(called, argument)}))
        with pytest.raises(MasslError, match="no ground truth needs"):
            read_ground_truth(path)
        assert not mark.exists()


def test_arrays_of_objects_in_a_pickle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps({**truth(), "more": np.array([{}, []], object)}))
    with pytest.raises(MasslError, match="are no numbers"):
        read_ground_truth(tmp_path / "gnd.pkl")


def test_damaged_ground_truths_get_one_line(tmp_path: Path) -> None:
    whole = pickle.dumps(truth())
    wrong = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "text": b"hello",
        "other": pickle.dumps([1, 2, 3]),
        "short": pickle.dumps({**truth(), "gnd": truth()["gnd"][:2]}),
        "far": pickle.dumps({**truth(), "imlist": ["one"]}),
    }
    for name, data in wrong.items():
        (tmp_path / f"{name}.pkl").write_bytes(data)
        with pytest.raises(MasslError):
            read_ground_truth(tmp_path / f"{name}.pkl")
    with pytest.raises(MasslError, match="no such file"):
        read_ground_truth(tmp_path / "nowhere.pkl")
