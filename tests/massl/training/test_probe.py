"""What is measured while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from massl.core.errors import MasslError
from massl.data.sources import Source, find_source
from massl.encoder import weights
from massl.encoder.inference import Deployed
from massl.encoder.whitening import whitening_of
from massl.evaluation import knn_top1
from massl.evaluation.datasets import read_labelled
from massl.method.network import build_backbone
from massl.training.probe import Probe, find_classes


def files(root: Path) -> Source:
    return find_source(root)[0]


def test_it_measures_rank_spread_and_knn(photos: Path) -> None:
    probe = Probe.prepare(files(photos), 32, photos)
    backbone = build_backbone("resnet18", 32).train()
    measured = probe.measure(backbone, torch.device("cpu"), torch.float32)
    assert backbone.training
    assert 1 < measured["rankme"] <= 24
    assert 0 < measured["spread"] < 1
    assert measured["knn_top1"] in {right / 12 for right in range(13)}
    assert set(Probe.prepare(files(photos), 32).measure(backbone, torch.device("cpu"), torch.float32)) == {
        "rankme",
        "spread",
    }


def test_a_transformer_is_measured_at_the_size_that_it_is_exported_for(photos: Path) -> None:
    backbone = build_backbone("test_vit", 32, 16)
    measured = Probe.prepare(files(photos), 64, photos).measure(backbone, torch.device("cpu"), torch.float32)
    assert 0 < measured["spread"] < 1


def test_classes_are_those_that_evaluation_sees(photos: Path, tmp_path: Path) -> None:
    whole = Probe.prepare(files(photos), 32, photos)
    assert len(np.unique(whole.labels)) == 4
    (tmp_path / "halved" / "Val").mkdir(parents=True)
    photos.rename(tmp_path / "halved" / "train")
    for folder in sorted((tmp_path / "halved" / "train").iterdir())[:2]:
        folder.rename(tmp_path / "halved" / "Val" / folder.name)
    halved = Probe.prepare(files(tmp_path / "halved"), 32, tmp_path / "halved")
    assert np.bincount(halved.labels).tolist() == [6, 6, 6, 6]
    assert set(find_classes(tmp_path / "halved")[1].values()) == set(read_labelled(tmp_path / "halved").labels)


@pytest.mark.parametrize("dim", [1, 4, 8])
def test_knn_is_of_what_the_run_would_export(photos: Path, dim: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", 32)
    source = files(photos)
    plain = Probe.prepare(source, 32, photos).measure(backbone, torch.device("cpu"), torch.float32)
    probe = Probe.prepare(source, 32, photos, dim)
    measured = probe.measure(backbone, torch.device("cpu"), torch.float32)
    assert measured["knn_last"] == plain["knn_top1"]
    assert (measured["rankme"], measured["spread"]) == (plain["rankme"], plain["spread"])
    found = weights.PretrainedBackbone(backbone.eval(), "resnet18", 32, {})
    pixels = probe.pixels.permute(0, 2, 3, 1)
    with torch.no_grad():
        whitening = whitening_of(Deployed(found, stages=True)(pixels)[0], dim)
        z = Deployed(found, True, whitening)(pixels)[0].numpy()
    bank, asked = probe.bank, probe.asked
    assert measured["knn_top1"] == knn_top1(z[bank], probe.labels[bank], z[asked], probe.labels[asked])
    assert dim > 1 or measured["knn_top1"] < measured["knn_last"]  # one component can't tell four kinds apart


def test_a_network_that_sees_all_alike_measures_as_collapsed_and_one_that_is_told_scores_in_full(photos: Path) -> None:
    class Blind(nn.Module):
        def forward(self, images):
            return torch.ones(len(images), 8)

    class Told(nn.Module):
        """Knows each picture's label: the labelled ones come first."""

        def forward(self, images):
            rows = torch.eye(4)[torch.from_numpy(probe.labels)]
            return rows[: len(images)] if len(images) == len(rows) else torch.cat([rows, torch.ones(len(images), 4)])

    probe = Probe.prepare(files(photos), 32, photos)
    blind = probe.measure(Blind(), torch.device("cpu"), torch.float32)
    assert blind["rankme"] == pytest.approx(1, abs=1e-3)
    assert blind["spread"] == pytest.approx(0, abs=1e-5)
    assert blind["knn_top1"] == pytest.approx(1 / 4)
    pixels = probe.pixels[: len(probe.labels)]
    only = Probe(torch.cat([pixels, pixels[:0]]), probe.labels, probe.bank, probe.asked)
    told = only.measure(Told(), torch.device("cpu"), torch.float32, student=Blind(), linear=True)
    assert (told["knn_top1"], told["linear_top1"], told["knn_student"]) == (1.0, 1.0, pytest.approx(1 / 4))
    assert not {"knn_student", "linear_top1"} & blind.keys()


def test_labels_that_can_not_be_used_say_so(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(MasslError, match="subfolder of at least two readable images for each of at least two classes"):
        Probe.prepare(files(photos), 32, photos / "flag")
    with pytest.raises(MasslError, match="there is no such folder"):
        Probe.prepare(files(photos), 32, tmp_path / "missing")
