"""The few-shot classifier as a file of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from indexer import Collection, Encoder
from indexer.fewshot.classification import train
from indexer.fewshot.classifiers import Candidate, Neighbours, candidates
from indexer.fewshot.label_state import CollectionFewshot
from massl.core.errors import MasslError
from massl.core.images.decoding import open_image


@pytest.fixture
def labelled(collection: Collection) -> Collection:
    """Three pictures of each of four kinds, one of which would like to be markup."""
    for kind, name in (("flag", "flag"), ("fruit", "<b>fruit</b> é"), ("space", "space"), ("painting", "painting")):
        collection.labels.add(
            name, [image for image, path in collection.images.ready() if path.startswith(kind)][:3], "me"
        )
    return collection


def test_pictures_get_the_probabilities_that_classify_gives(labelled: Collection, tmp_path: Path) -> None:
    fitted = labelled.fewshot.export(tmp_path / "classifier.onnx", labelled.encoder)
    session = onnxruntime.InferenceSession(tmp_path / "classifier.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    side = labelled.encoder.image_size
    assert (given.name, given.type, given.shape[1:]) == ("pixels", "tensor(uint8)", [side, side, 3])
    assert [output.name for output in session.get_outputs()] == ["probabilities", "embedding"]
    facts = session.get_modelmeta().custom_metadata_map
    names = json.loads(facts["massl.labels"])
    assert names == sorted({item.label for item in labelled.labels.every()}) == list(fitted.classes)
    assert facts["massl.encoder_sha256"] == labelled.encoder.sha256
    assert int(facts["massl.resize"]) == labelled.encoder.resize

    result = labelled.fewshot.classify()
    paths = labelled.images.paths_of(result.images.tolist())
    pixels = [labelled.encoder.prepare(open_image(labelled.root / path, labelled.encoder.resize)) for path in paths]
    (shares,) = session.run(["probabilities"], {"pixels": np.stack(pixels)})
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    unlabelled = ~result.labelled
    assert (shares.argmax(1) == result.predicted)[unlabelled].all()
    assert np.allclose(shares.max(1)[unlabelled], result.probability[unlabelled], atol=5e-3)
    _, vectors, _ = _state(labelled)
    assert np.allclose(shares, fitted.probabilities(vectors), atol=5e-3)  # stored vectors are in half precision


def _state(collection: Collection):
    ids, vectors = CollectionFewshot(collection.catalog).vectors()
    return ids, vectors, {collection.images.id_of(item.path): item.label for item in collection.labels.every()}


def test_the_file_is_no_encoder_s_own_and_loads_as_one_all_the_same(labelled: Collection, tmp_path: Path) -> None:
    labelled.fewshot.export(tmp_path / "classifier.onnx", labelled.encoder)
    again = Encoder.load(tmp_path / "classifier.onnx")
    assert again.dim == labelled.encoder.dim
    assert again.sha256 != labelled.encoder.sha256


def test_a_place_that_cannot_be_written_gets_a_sentence(labelled: Collection, tmp_path: Path) -> None:
    with pytest.raises(MasslError, match="choose another place"):
        labelled.fewshot.export(tmp_path / "nowhere" / "classifier.onnx", labelled.encoder)
    assert list(tmp_path.glob("**/*.tmp")) == []


def test_examples_that_no_file_can_hold_are_said_to_be_too_many(
    labelled: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from indexer.fewshot import onnx_export

    fitted = train(*_state(labelled))
    many = replace(fitted, head=Neighbours(np.zeros((9, 384), np.float32), np.zeros(9, np.int64), 4, 3))
    monkeypatch.setattr(onnx_export, "MOST", many.head.features.nbytes - 1)
    with pytest.raises(MasslError, match="all 9 labelled images would be too large"):
        onnx_export.write(many, labelled.encoder, tmp_path / "classifier.onnx")


def test_one_class_makes_no_classifier(collection: Collection, tmp_path: Path) -> None:
    collection.labels.add("only", [1, 2, 3, 4, 5], "me")
    with pytest.raises(MasslError, match="only 'only'"):
        collection.fewshot.export(tmp_path / "classifier.onnx", collection.encoder)
    assert not (tmp_path / "classifier.onnx").exists()


@pytest.mark.parametrize("candidate", candidates(12), ids=str)
def test_every_head_is_exported_as_it_is(labelled: Collection, tmp_path: Path, candidate: Candidate) -> None:
    from dataclasses import replace

    from indexer.fewshot import onnx_export

    ids, vectors, labels = _state(labelled)
    fitted = train(ids, vectors, labels)
    rows = np.isin(ids, list(labels))
    targets = np.array([fitted.classes.index(labels[int(identity)]) for identity in ids[rows]])
    other = replace(fitted, head=candidate.fit(vectors[rows], targets, 4))
    onnx_export.write(other, labelled.encoder, tmp_path / "other.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "other.onnx", providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).integers(0, 256, (2, *2 * [labelled.encoder.image_size], 3), np.uint8)
    (shares,) = session.run(["probabilities"], {"pixels": pixels})
    assert np.allclose(shares, other.probabilities(labelled.encoder.embed(pixels)), atol=1e-3)
