"""The screen "Label": what it answers to whatever a browser sends, and its story in a real browser."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest

from app.screens.classification_advice import UNLIKELY
from app.screens.label import CLOSE, LabelScreen
from app.screens.label_downloads import EXPORTS
from app.session import Session
from indexer import Collection
from indexer.jobs.background import BackgroundJob
from indexer.store.labels import ACCEPTED, DRAWN, NONE_OF_THESE
from massl.core.errors import MasslError
from tests.app.conftest import PHONE, Visit, show


@pytest.fixture
def screen(unlabelled: Collection, tmp_path: Path) -> LabelScreen:
    """The screen of a collection without labels and decisions."""
    unlabelled.rejections.remove(
        [(image, label) for image, names in unlabelled.rejections.by_image().items() for label in names]
    )
    unlabelled.confirmations.remove(unlabelled.confirmations.every())
    return LabelScreen(unlabelled, tmp_path)


KINDS = ("antique", "bug", "flag", "fruit", "painting", "space")


def _label(collection: Collection, each: int, *kinds: str) -> None:
    for kind in kinds:
        own = [image for image, path in collection.images.ready() if path.startswith(f"{kind}/")]
        collection.labels.add(kind, own[:each], "test")


def _tiles(drawn: dict[str, Any]) -> list[dict[str, Any]]:
    return [tile for section in drawn["sections"] for tile in section["tiles"]]


def _done(screen: LabelScreen, session: Session, payload: dict[str, Any] | None = None) -> dict[str, Any]:
    """The screen once nothing goes on in the background."""
    drawn = screen.do(session, payload or {"do": "start"})
    message, download = drawn["message"], drawn["download"]
    for _ in range(100):
        if not drawn["running"]:
            break
        drawn = screen.do(session, {"do": "start"})
    return drawn | {"message": message, "download": download}


# Queues ---------------------------------------------------------------------------------------------------------------


def test_the_least_usual_pictures_without_a_label_come_first(screen: LabelScreen) -> None:
    ids, scores = screen.collection.anomalies.by_image()
    order = ids[np.argsort(-scores, kind="stable")].tolist()
    screen.collection.labels.add("seen", order[:1], "test")
    session = Session()
    _done(screen, session, {"do": "view", "view": "unusual"})
    drawn = _done(screen, session)
    shown = [tile["id"] for tile in _tiles(drawn)]
    assert drawn["view"] == "unusual"
    assert shown == order[1 : len(shown) + 1]
    assert drawn["paging"] == {"accept": False, "left": len(order) - 1}
    assert screen.do(session, {"do": "details", "image": shown[0]})["why"] is True
    why = screen.do(session, {"do": "why", "image": shown[0]})
    parts = screen.collection.anomalies.parts_of(shown[0])
    assert why["title"] == "Where it is unusual"
    assert np.allclose(why["cosines"], parts.distances, atol=1e-3)
    _done(screen, session, {"do": "view", "view": "different"})
    assert screen.do(session, {"do": "details", "image": shown[0]})["why"] is False


def test_the_pictures_that_the_accuracy_says_nothing_about_can_be_listed(screen: LabelScreen) -> None:
    session = Session()
    _label(screen.collection, 9, "flag", "space")
    drawn = _done(screen, session, {"do": "view", "view": "strange"})
    result = screen.collection.fewshot.classify()
    strange = set(result.images[~result.familiar & ~result.labelled].tolist())
    assert drawn["estimate"]["strange"] == len(strange) > 0
    shown = _tiles(drawn)
    assert len(shown) == min(24, len(strange))
    assert {tile["id"] for tile in shown} <= strange
    assert {tile["doubt"] for tile in shown} == {"unlike all labelled"}


def test_of_near_copies_one_is_asked_about(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "copies"
    for kind in ("flag", "space", "bug"):
        (root / kind).mkdir(parents=True)
        for file in sorted((pictures / kind).glob("*.jpg"))[:8]:
            shutil.copy(file, root / kind)
    for name in ("a", "b", "c"):  # of one picture, at the top of every list
        shutil.copy(sorted((pictures / "fruit").glob("*.jpg"))[0], root / f"{name}.jpg")
    made = Collection.create(root)
    made.update()
    _label(made, 4, "flag", "space")
    for view in ("unsure", "unusual", "strange"):
        seen = {
            tile["path"] for tile in _tiles(_done(LabelScreen(made, tmp_path), Session(), {"do": "view", "view": view}))
        }
        assert len(seen & {"a.jpg", "b.jpg", "c.jpg"}) == 1, view
    page = _tiles(_done(LabelScreen(made, tmp_path), Session(), {"do": "view", "view": "drawn"}))
    assert {"a.jpg", "b.jpg", "c.jpg"} <= {tile["path"] for tile in page}  # a random sample leaves nothing out


# What to do next ------------------------------------------------------------------------------------------------------


def test_at_every_point_it_says_what_to_do_next(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    drawn = _done(screen, session)
    assert (drawn["view"], drawn["advice"]["text"], drawn["exports"]) == ("groups", "Name the first class", [])
    assert len(drawn["sections"]) >= 5
    _label(collection, 5, "flag")  # five labels of one class only
    drawn = _done(screen, session)
    assert drawn["advice"]["text"] == "Name a second class"
    assert drawn["view"] == "groups"
    assert [view["ready"] for view in drawn["views"]] == [True, True, True, *[False] * 7]
    _label(collection, 1, "fruit")
    drawn = _done(screen, session)
    assert drawn["advice"]["text"] == "Label a second picture “fruit”"
    assert "only one so far: fruit" in drawn["summary"][0]
    _label(collection, 3, "fruit")
    assert _done(screen, session)["advice"]["view"] == "different"
    assert drawn["view"] == "groups"  # what somebody works at stays
    _label(collection, 7, *KINDS)
    drawn = _done(screen, session)
    assert drawn["advice"]["view"] in ("unsure", "sure", "check", "drawn")
    drawn = _done(screen, session, {"do": "sure", "sure": 1})
    assert drawn["summary"][0].endswith("Label a page of the random sample to measure it.")
    assert "%" not in drawn["summary"][0]
    collection.labels.add(
        "fruit", [image for image, _ in collection.images.ready() if image not in _given(collection)], "test"
    )
    collection.confirmations.add(
        (suspect.image, suspect.given) for suspect in collection.fewshot.suspects()
    )  # all this fruit
    assert _done(screen, session)["advice"]["text"] == "Everything is labelled"


def _given(collection: Collection) -> set[int]:
    return {collection.images.id_of(item.path) for item in collection.labels.every()}


def test_a_page_is_accepted_and_the_next_comes_and_all_is_undone(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 4, *KINDS)
    before = collection.labels.every()
    page = _tiles(_done(screen, session, {"do": "view", "view": "unsure"}))
    assert len(page) == 24
    proposed = [[tile["id"], tile["guess"]] for tile in page]
    collection.labels.add("by hand", [page[0]["id"]], "somebody else")  # since the page was drawn: stays
    drawn = _done(screen, session, {"do": "accept", "seen": proposed})
    assert drawn["message"]["text"] == "Accepted 23 pictures"
    labels = collection.labels.of([image for image, _ in proposed])
    assert {labels[image].author for image, _ in proposed[1:]} == {ACCEPTED}  # nobody chose these
    assert labels[page[0]["id"]].label == "by hand"
    assert all(labels[image].label == guess for image, guess in proposed[1:])
    assert not {tile["id"] for tile in _tiles(drawn)} & {image for image, _ in proposed}
    collection.labels.remove([page[0]["id"]])
    assert collection.fewshot.classify().judged_on == 24  # the labels by hand, whatever was accepted
    drawn = _done(screen, session, {"do": "undo"})
    assert "Undone: accepted 23" in drawn["message"]["text"]
    assert collection.labels.every() == before
    # The page comes back: what is accepted next must be what was looked at.
    assert [tile["id"] for tile in _tiles(drawn)] == [image for image, _ in proposed]


def test_no_class_is_proposed_for_what_is_unlike_all_labelled(screen: LabelScreen) -> None:
    _label(screen.collection, 6, "flag", "fruit", "space")
    result = screen.collection.fewshot.classify()
    familiar = dict(zip(result.images.tolist(), result.familiar.tolist(), strict=True))
    tiles = _tiles(_done(screen, Session(), {"do": "view", "view": "strange"}))
    assert tiles
    assert not any(familiar[tile["id"]] for tile in tiles)
    likely = dict(zip(result.images.tolist(), result.probability.tolist(), strict=True))
    assert {tile["id"] for tile in tiles if "guess" in tile} == {
        tile["id"] for tile in tiles if likely[tile["id"]] >= UNLIKELY
    }
    assert any("guess" not in tile for tile in tiles)
    assert {tile["doubt"] for tile in tiles} == {"unlike all labelled"}


def test_a_page_drawn_by_chance_is_labelled_whole_and_tells_how_good_the_proposals_are(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 4, *KINDS)
    drawn = _done(screen, session, {"do": "view", "view": "drawn"})
    page = _tiles(drawn)
    assert len(page) == 24
    other = _tiles(_done(screen, Session(), {"do": "view", "view": "drawn"}))
    assert {tile["id"] for tile in page} != {tile["id"] for tile in other}
    first, *rest = page
    refused = _done(screen, session, {"do": "reject", "seen": [[first["id"], first["guess"]]]})
    assert "would be too high" in refused["message"]["text"]
    elsewhere = next(tile["id"] for tile in other if tile["id"] not in {tile["id"] for tile in page})
    _done(screen, session, {"do": "label", "label": "flag", "images": [elsewhere]})
    _done(screen, session, {"do": "label", "label": "flag", "images": [first["id"]]})
    drawn = _done(screen, session, {"do": "accept", "seen": [[tile["id"], tile["guess"]] for tile in rest]})
    authors = {image: label.author for image, label in collection.labels.of([first["id"], elsewhere]).items() if label}
    assert authors == {first["id"]: DRAWN, elsewhere: "page"}  # chosen by hand, not by chance
    result = collection.fewshot.classify()
    assert (result.drawn, result.judged_on) == (True, 24)
    assert any(
        line.startswith("Measured on 24 pictures of the random sample, each predicted from ")
        for line in drawn["summary"]
    )


def test_it_asks_for_kinds_that_were_not_named_and_takes_an_answer(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 7, *KINDS)
    collection.confirmations.add((suspect.image, suspect.given) for suspect in collection.fewshot.suspects())
    asked = _done(screen, session)["advice"]
    drawn = _done(screen, session, {"do": "kinds", "all": False})
    assert (drawn["view"], drawn["advice"]["text"]) == ("different", asked["text"])
    assert "Key 0" in drawn["message"]["text"]
    drawn = _done(screen, session, {"do": "kinds", "all": True})
    assert drawn["view"] == "drawn"
    assert "question" not in drawn["advice"]
    assert "random sample" in " ".join([drawn["advice"]["text"], drawn["advice"]["why"]]).lower()


def test_none_of_these_has_a_key_of_its_own_and_is_no_class_that_anybody_takes_away(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 4, "flag", "fruit")
    free = [image for image, path in collection.images.ready() if path.startswith("space/")][:5]
    drawn = _done(screen, session, {"do": "label", "images": free, "label": NONE_OF_THESE})
    assert [entry["name"] for entry in drawn["classes"]] == ["flag", "fruit"]
    assert drawn["none"] == {"name": NONE_OF_THESE, "count": 5}
    assert NONE_OF_THESE in [
        section["title"] for section in _done(screen, session, {"do": "view", "view": "class"})["sections"]
    ]
    for kind in EXPORTS.keys() - {"onnx"}:
        text = _done(screen, session, {"do": "export", "format": kind})["download"]["text"]
        assert "flag" in text
        assert NONE_OF_THESE not in text
    single = _done(screen, session, {"do": "unlabel", "images": free[1:]})
    assert "second picture" not in single["advice"]["text"]
    assert single["none"]["count"] == 1


def test_undoing_brings_back_the_page_whatever_was_looked_at_since(screen: LabelScreen) -> None:
    session = Session()
    _label(screen.collection, 4, *KINDS)
    page = _tiles(_done(screen, session, {"do": "view", "view": "unsure"}))
    _done(screen, session, {"do": "reject", "seen": [[page[0]["id"], page[0]["guess"]]]})
    _done(screen, session, {"do": "accept", "seen": [[tile["id"], tile["guess"]] for tile in page[1:]]})
    _done(screen, session, {"do": "next"})
    _done(screen, session, {"do": "view", "view": "class"})
    drawn = _done(screen, session, {"do": "undo"})
    assert drawn["view"] == "unsure"
    assert [tile["id"] for tile in _tiles(drawn)] == [tile["id"] for tile in page[1:]]
    assert not any(tile["label"] for tile in _tiles(drawn))
    drawn = _done(screen, session, {"do": "undo"})  # the rejected one is on its page again, where it was
    assert [(tile["id"], tile["guess"]) for tile in _tiles(drawn)] == [(tile["id"], tile["guess"]) for tile in page]


def test_rejected_proposals_leave_the_page_are_not_made_again_and_can_be_undone(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 4, *KINDS)
    page = _tiles(_done(screen, session, {"do": "view", "view": "unsure"}))
    wrong = [[tile["id"], tile["guess"]] for tile in page[:3]]
    drawn = _done(screen, session, {"do": "reject", "seen": wrong})
    assert drawn["message"]["text"] == "Rejected 3 pictures"
    assert len(_tiles(drawn)) == 21
    again = {
        tile["id"]: tile.get("guess") for tile in _tiles(_done(screen, Session(), {"do": "view", "view": "unsure"}))
    }
    assert all(again[image] != guess for image, guess in wrong)
    assert _done(screen, session, {"do": "undo"})["message"]["text"] == "Undone: rejected 3 pictures"
    assert collection.rejections.by_image() == {}


def test_a_queue_stays_in_place_until_it_is_answered_or_skipped(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 4, "flag", "fruit")
    for view in ("different", "unsure"):
        page = [tile["id"] for tile in _tiles(_done(screen, session, {"do": "view", "view": view}))]
        drawn = _done(screen, session, {"do": "label", "images": page[:5], "label": "fruit"})
        assert [tile["id"] for tile in _tiles(drawn)] == page
        assert [tile["label"] for tile in _tiles(drawn)][:6] == ["fruit"] * 5 + [None]
        skipped = [tile["id"] for tile in _tiles(_done(screen, session, {"do": "next"}))]
        assert skipped
        assert not set(skipped) & set(page)
        _done(screen, session, {"do": "undo"})


def test_the_confident_list_is_limited_to_one_class(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 4, "flag", "fruit", "space")
    every = _tiles(_done(screen, session, {"do": "view", "view": "sure"}))
    assert len({tile["guess"] for tile in every}) > 1
    drawn = _done(screen, session, {"do": "only", "only": "space"})
    assert (drawn["view"], drawn["only"]) == ("sure", "space")
    assert {tile["guess"] for tile in _tiles(drawn)} == {"space"}
    _done(screen, session, {"do": "sure", "sure": 99})
    assert "No proposal of “space” reaches 99 %" in _done(screen, session)["empty"]
    # A class that nobody has any more, or never had, limits nothing.
    _done(screen, session, {"do": "sure", "sure": 50})
    drawn = _done(screen, session, {"do": "only", "only": "no class"})
    assert drawn["only"] == ""
    assert [tile["id"] for tile in _tiles(drawn)] == [tile["id"] for tile in every]


def test_the_uncertain_list_begins_with_the_likeliest_of_one_class(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 2, "flag", "fruit", "space")
    _done(screen, session, {"do": "view", "view": "unsure"})
    drawn = _done(screen, session, {"do": "only", "only": "space"})
    assert (drawn["view"], drawn["only"]) == ("unsure", "space")
    assert drawn["sections"][0]["note"] == "the likeliest to be “space” first, whatever is proposed"
    shown = [tile["id"] for tile in _tiles(drawn)]
    ids, vectors = collection.fewshot.vectors()
    fitted = collection.fewshot.classify().fitted
    chances = dict(zip(ids.tolist(), fitted.probabilities(vectors)[:, fitted.classes.index("space")], strict=True))
    free = [image for image in ids.tolist() if image not in collection.labels.by_image()]
    assert [chances[image] for image in shown] == sorted((chances[image] for image in free), reverse=True)[: len(shown)]
    assert len({tile.get("guess") for tile in _tiles(drawn)}) > 1  # none for what is unlike all labelled
    # Who is said to be none of it is asked about no more.
    collection.rejections.add({shown[0]: "space"})
    _done(screen, session, {"do": "view", "view": "unsure"})
    assert shown[0] not in {tile["id"] for tile in _tiles(_done(screen, session))}
    assert collection.fewshot.likeliest("no class").tolist() == []


def test_the_minimum_probability_leaves_pictures_without_a_class(screen: LabelScreen) -> None:
    session = Session()
    _label(screen.collection, 4, "flag", "fruit", "space")
    _done(screen, session, {"do": "view", "view": "class"})
    sizes = []
    for sure in (1, 60, 99):
        drawn = _done(screen, session, {"do": "sure", "sure": sure})
        assert drawn["sure"] == sure
        titles = {section["title"]: section["note"] for section in drawn["sections"]}
        sizes.append(int(titles.get("Below the minimum probability", "0")))
        assert set(titles) >= {"flag", "fruit", "space"}
    assert sizes == sorted(sizes)
    assert sizes[2] == len(screen.collection) - 12  # nobody is that sure after twelve labels


def test_a_label_that_looks_wrong_is_shown_with_its_neighbours_and_is_kept_or_changed(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 9, "flag", "space")
    wrong = collection.images.id_of([item.path for item in collection.labels.every() if item.label == "flag"][7])
    collection.labels.add("space", [wrong], "test")
    drawn = _done(screen, session, {"do": "view", "view": "check"})
    suspect = next(each for each in drawn["suspects"] if each["tile"]["id"] == wrong)
    assert (suspect["given"], suspect["proposed"]) == ("space", "flag")
    assert len(suspect["neighbours"]) == 4
    assert all(near["path"].startswith("flag/") for near in suspect["neighbours"])
    drawn = _done(screen, session, {"do": "keep", "images": [wrong]})
    assert wrong not in [each["tile"]["id"] for each in drawn["suspects"]]
    drawn = _done(screen, session, {"do": "undo"})
    assert wrong in [each["tile"]["id"] for each in drawn["suspects"]]
    drawn = _done(screen, session, {"do": "label", "images": [wrong], "label": "flag"})
    assert wrong not in [each["tile"]["id"] for each in drawn["suspects"]]


def test_the_table_of_labels_and_proposals_is_offered_first_and_says_how_many_it_holds(screen: LabelScreen) -> None:
    session = Session()
    _label(screen.collection, 4, "flag")
    offered = _done(screen, session)["exports"]
    assert [entry["name"] for entry in offered][:2] == [
        "Labels and proposals (CSV)",
        "Labels only (CSV)",
    ]
    assert [entry["ready"] for entry in offered] == [False, True, True, True, True, False]  # with one class only
    _label(screen.collection, 4, "fruit", "space")
    assert all(entry["ready"] for entry in _done(screen, session)["exports"])
    _done(screen, session, {"do": "sure", "sure": 60})
    drawn = _done(screen, session, {"do": "export", "format": "csv+"})
    rows = list(csv.DictReader(drawn["download"]["text"].splitlines()))
    proposed = [float(row["probability"]) for row in rows if row["author"] == "massl"]
    assert drawn["message"]["text"].endswith(f", {len(proposed)} proposed at least 60 % sure")
    assert proposed
    assert min(proposed) >= 0.6
    assert len(rows) == len(proposed) + 12


def test_labels_that_give_way_to_another_are_told(screen: LabelScreen) -> None:
    session = Session()
    _label(screen.collection, 4, "flag", "fruit")
    known = [screen.collection.images.id_of(item.path) for item in screen.collection.labels.every()]
    free = [image for image, _ in screen.collection.images.ready() if image not in known]

    def said(images: list[int], label: str) -> str:
        return str(screen.do(session, {"do": "label", "images": images, "label": label})["message"]["text"])

    assert said(free[:2], "space") == "Labelled 2 pictures “space”"
    mixed = said([*known, *free[:3]], "space")
    assert mixed == "Labelled 11 pictures “space”, of which 4 “flag”, 4 “fruit” before; Undo brings those back"
    assert said(free[:1], "<b>") == "Labelled 1 picture “<b>”, which was “space”"
    assert said(free[:1], "<b>") == "Labelled 1 picture “<b>”"  # nothing gave way
    for _ in range(3):
        screen.do(session, {"do": "undo"})
    assert screen.collection.labels.counts() == {"flag": 4, "fruit": 4, "space": 2}


def test_the_panel_points_to_labels_that_look_wrong_until_they_are_answered(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 15, "flag", "space", "fruit", "painting")
    _done(screen, session)
    for path in [item.path for item in collection.labels.every() if item.label == "flag"]:
        wrong = collection.images.id_of(path)
        collection.labels.add("space", [wrong], "test")
        if wrong in [suspect.image for suspect in collection.fewshot.suspects()]:
            break  # not every wrong label is found, which ones depends on the encoder
        collection.labels.add("flag", [wrong], "test")
    _done(screen, session, {"do": "view", "view": "check"})
    drawn = _done(screen, session)
    doubtful = [suspect["tile"]["id"] for suspect in drawn["suspects"]]
    assert wrong in doubtful
    assert drawn["advice"]["view"] == "check"
    assert drawn["advice"]["text"].startswith(f"Check {len(doubtful)} label")
    assert _done(screen, session, {"do": "keep", "images": doubtful})["advice"]["view"] != "check"
    assert _done(screen, session, {"do": "undo"})["advice"]["view"] == "check"


def test_nobody_is_sent_to_check_labels_while_these_are_too_few_to_tell_what_is_wrong(screen: LabelScreen) -> None:
    collection, session = screen.collection, Session()
    _label(collection, 5, "flag", "space", "fruit", "painting")
    wrong = [collection.images.id_of(item.path) for item in collection.labels.every() if item.label == "flag"][:2]
    collection.labels.add("space", wrong, "test")
    assert not collection.fewshot.classify().labels_known_within(CLOSE)
    assert _done(screen, session)["advice"]["view"] != "check"
    _done(screen, session, {"do": "view", "view": "check"})  # but whoever asks is answered
    drawn = _done(screen, session)
    assert drawn["suspects"] or "No label looks clearly wrong" in drawn["empty"]
    assert drawn["advice"]["view"] != "check"


def test_keys_of_classes_are_the_same_for_everybody_and_do_not_shift_when_one_is_added(screen: LabelScreen) -> None:
    session = Session()
    _label(screen.collection, 2, "flag", "space")
    assert [each["name"] for each in screen.do(session, {"do": "start"})["classes"]] == ["flag", "space"]
    _label(screen.collection, 2, "bug", "fruit")
    for person in (session, Session()):  # the same page, and one that was reloaded or is somebody else's
        names = [each["name"] for each in screen.do(person, {"do": "start"})["classes"]]
        assert names == ["flag", "space", "bug", "fruit"]


@pytest.mark.parametrize(
    "payload",
    [
        {"do": "nonsense"},
        {"do": "accept"},
        {"do": "accept", "seen": []},
        {"do": "accept", "seen": [[1]]},
        {"do": "accept", "seen": [["1", "flag"]]},
        {"do": "accept", "seen": [[1, 2]]},
        {"do": "accept", "seen": [[987654, "flag"]]},
        {"do": "accept", "seen": [[1, "no such class"]]},
        {"do": "reject", "seen": [[987654, "flag"]]},
        {"do": "reject", "seen": "all"},
        {"do": "keep", "images": [987654]},
        {"do": "sure", "sure": "very"},
        {"do": "export", "format": "../../etc/passwd"},
        {"do": "export", "format": "onnx"},
        {"do": "label", "images": [1], "label": "y" * 10_000},
        {"do": "undo"},
    ],
)
def test_whatever_a_browser_sends_the_answer_is_a_sentence(
    screen: LabelScreen, payload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    drawn = screen.do(Session(), payload)
    assert drawn["message"]["kind"] == "error"
    assert drawn["message"]["text"].endswith(".")
    assert screen.collection.labels.every() == []
    assert screen.collection.rejections.by_image() == {}
    assert caplog.records == []  # foreseen, not merely survived


# In the background ----------------------------------------------------------------------------------------------------


def test_what_fails_in_the_background_is_said_once_and_not_tried_again_at_every_look(
    screen: LabelScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail() -> None:
        tried.append(True)
        raise MasslError("the disk is full")

    monkeypatch.setattr(screen.collection.fewshot, "groups", fail)
    session = Session()
    for _ in range(3):
        drawn = _done(screen, session, {"do": "view", "view": "groups"})
        assert drawn["problem"] == "Finding groups of similar pictures failed: the disk is full"
    assert len(tried) == 1
    screen.do(session, {"do": "regroup"})  # only when somebody asks
    assert len(tried) == 2


def test_pictures_that_left_are_left_out_of_the_groups_until_these_are_sought_anew(screen: LabelScreen) -> None:
    found = [replace(group, typical=(10**9, *group.typical)) for group in screen.collection.fewshot.groups(3)]
    screen._grouping = BackgroundJob(lambda report: found)
    drawn = _done(screen, Session(), {"do": "view", "view": "groups"})
    assert drawn["message"] is None
    assert [len(section["tiles"]) for section in drawn["sections"]] == [len(group.typical) - 1 for group in found]


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(visit: Visit, site: str, screen: LabelScreen) -> Iterator[Any]:
    """The screen in a browser."""
    with visit(site, "Label") as tab:
        tab.wait_for_selector("#massl-label .naming")
        yield tab


def _until(tab: Any, text: str, where: str = ".ask") -> None:
    tab.wait_for_function(
        "([where, text]) => document.querySelector(`#massl-label ${where}`)?.innerText.includes(text)",
        arg=[where, text],
    )


def test_ctrl_z_after_a_reload_says_that_there_is_nothing_to_undo(page: Any, screen: LabelScreen) -> None:
    page.locator("#massl-label section .tick").nth(0).click()
    page.locator("#massl-label .bar input").fill("flower")
    page.keyboard.press("Enter")
    _until(page, "Labelled 1 picture", ".bar")
    page.reload()
    show(page, "Label")
    page.keyboard.press("Control+z")
    _until(page, "There is nothing to undo; steps can be undone until the page is reloaded.", ".message.error")
    assert screen.collection.labels.counts() == {"flower": 1}


def test_a_person_looks_closely_before_labelling(page: Any, screen: LabelScreen) -> None:
    board = page.locator("#massl-label")
    assert not board.locator(".bar").is_visible()  # nothing is selected
    first = board.locator(".picture").nth(0)
    name = first.get_attribute("title")
    first.focus()
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Full-size view")
    viewer.get_by_text(name).first.wait_for()
    page.keyboard.press("i")
    details = page.locator("#massl-label dialog.details")
    details.get_by_role("heading", name=name).wait_for()
    details.get_by_text("pixels").wait_for()
    assert details.get_by_role("button", name="More like this").count() == 0  # that is a search
    page.keyboard.press("Escape")
    first.dblclick()
    viewer.get_by_text(name).first.wait_for()
    page.keyboard.press("Escape")
    assert board.locator(".tile.chosen").count() == 0  # two clicks select and unselect
    first.click()
    assert board.locator(".bar").is_visible()
    page.keyboard.press("Escape")
    assert not board.locator(".bar").is_visible()
    assert screen.collection.labels.every() == []


def test_a_label_that_looks_wrong_is_looked_at_beside_what_says_so(
    visit: Visit, site: str, screen: LabelScreen
) -> None:
    collection = screen.collection
    _label(collection, 9, "flag", "space")
    wrong = collection.images.id_of([item.path for item in collection.labels.every() if item.label == "flag"][7])
    collection.labels.add("space", [wrong], "test")
    with visit(site, "Label") as tab:
        tab.locator("#massl-label").get_by_role("button", name="Label errors", exact=True).click()
        near = tab.locator(f"#massl-label .suspect:has(img[src='thumbnail/{wrong}']) .near button")
        near.first.click()
        images = tab.get_by_role("dialog", name="Full-size view").locator("img")
        sources = images.evaluate_all("all => all.map(image => image.getAttribute('src'))")
        assert (len(sources), sources[0]) == (2, f"full/{wrong}")


def test_the_accuracy_is_one_large_number_with_a_bar_for_each_class(
    visit: Visit, site: str, screen: LabelScreen
) -> None:
    collection = screen.collection
    _label(collection, 4, "flag", "fruit", "space")
    with visit(site, "Label") as tab:
        board = tab.locator("#massl-label")
        board.get_by_text("accuracy not known yet").wait_for()
        assert board.locator(".large").inner_text() == "?"
        tab.wait_for_selector("#massl-label .tile .picture")
        # The pictures begin as near to the top as those of the screen Search do, give or take the line of views.
        # A line of progress stands above them meanwhile, on a busy machine.
        tab.wait_for_function(
            "() => document.querySelector('#massl-label .tile .picture')?.getBoundingClientRect().top < 200"
        )
        assert not board.locator(".explained").is_visible()
        board.get_by_role("button", name="Classes").click()
        assert board.locator(".shares .name").all_inner_texts() == ["flag", "fruit", "space"]
        assert all(re.fullmatch(r"\d+ proposed", text) for text in board.locator(".shares .expect").all_inner_texts())
        board.locator(".estimate").get_by_role("button", name="unlike all labelled").click()
        tab.wait_for_selector("#massl-label .order[aria-pressed='true']:text-is('Unfamiliar')")
        board.locator(".shares").get_by_role("button", name="space").click()  # the bar leads to the class
        tab.wait_for_function(
            "() => { const at = document.querySelector(\"#massl-label section[aria-label='space']\");"
            " const top = at?.getBoundingClientRect().top; return top >= -1 && top < innerHeight; }"
        )

        # A random sample is labelled meanwhile, by somebody who knows.
        known = _given(collection)
        free = [(image, path.split("/")[0]) for image, path in collection.images.ready() if image not in known]
        drawn = [free[place] for place in np.random.default_rng(0).permutation(len(free))[:24]]
        answers = {image: kind if kind in ("flag", "fruit", "space") else NONE_OF_THESE for image, kind in drawn}
        collection.labels.give(answers, DRAWN)
        tab.reload()
        show(tab, "Label")
        tab.wait_for_function("() => document.querySelector('#massl-label .large')?.innerText.endsWith('%')")
        assert "95 % interval" in board.locator(".estimate").inner_text()
        expected = board.locator(".shares .expect").all_inner_texts()
        assert any(re.fullmatch(r"\d+ proposed, about \d+ right", text) for text in expected)
        board.get_by_role("button", name="Confident").click()
        board.get_by_label("Proposals of this class").select_option("flag")
        tab.wait_for_function(
            "() => { const names = [...document.querySelectorAll('#massl-label .tile .name')].map(n => n.innerText);"
            " return names.length > 0 && names.every(name => name === 'flag'); }"
        )
        assert board.locator(".explained p").first.inner_text().startswith("Measured on")
        board.get_by_role("button", name="Classes").click()
        assert not board.locator(".explained").is_visible()


def test_a_person_names_groups_accepts_rejects_and_takes_the_labels_away(
    page: Any, screen: LabelScreen, tmp_path: Path
) -> None:
    board, collection = page.locator("#massl-label"), screen.collection
    kinds = {image: path.split("/")[0] for image, path in collection.images.ready()}
    _until(page, "Name the first class")

    # Groups are named: what doesn't belong is left out by selecting what does.
    named = 0
    while named < 2:
        group = board.locator("section").nth(0)
        ids = [int(node.get_attribute("data-image")) for node in group.locator(".tile").all()]
        most = max({kinds[image] for image in ids}, key=[kinds[image] for image in ids].count)
        for place, image in enumerate(ids):
            if kinds[image] == most:
                group.locator(".tick").nth(place).click()
        name = "<b>bold</b>" if not named else "two"  # markup stays text
        group.locator(".naming input").fill(name)
        group.locator(".naming input").press("Enter")
        named += 1
        classes = "#massl-label .class:not(.none)"
        page.wait_for_function(f"() => document.querySelectorAll('{classes}').length === {named}")
    assert board.locator(".class .name").all_inner_texts()[0] == "<b>bold</b>"
    assert set(collection.labels.counts()) == {"<b>bold</b>", "two"}
    board.get_by_role("button", name="Classes").click()
    _until(page, "labelled by hand")

    # A name that is none, or too long, is said to be so, and what was typed stays.
    naming = board.locator(".naming").nth(0)
    for typed, told in (("   ", "Type a name"), ("n" * 10_000, "10,000 characters")):
        naming.locator("input").fill(typed)
        naming.locator("button").click()
        assert told in board.locator(".message.error").inner_text()
        assert naming.locator("input").input_value() == typed
    assert set(collection.labels.counts()) == {"<b>bold</b>", "two"}
    naming.locator("input").fill("")

    # What is typed, and where, stays when pictures come in and all is drawn anew.
    naming.locator("input").press_sequentially("dog")
    page.evaluate("document.dispatchEvent(new Event('massl-indexed'))")
    page.wait_for_selector("#massl-label .massl-board[aria-busy]", state="detached")
    assert naming.locator("input").input_value() == "dog"
    assert naming.locator("input").evaluate("field => field === document.activeElement")
    naming.locator("input").fill("")

    # A rectangle drawn around the first two pictures selects them, and a key names them.
    board.get_by_role("button", name="Uncertain").click()
    page.wait_for_selector("#massl-label .paging")
    first, second = (board.locator(".tile").nth(place).bounding_box() for place in (0, 1))
    page.mouse.move(first["x"] + 30, first["y"] + first["height"] - 4)
    page.mouse.down()
    page.mouse.move(second["x"] + 40, second["y"] + 60, steps=4)
    page.mouse.up()
    assert board.locator(".tile.chosen").count() == 2
    before = len(collection.labels.every())
    page.keyboard.press("1")
    page.wait_for_function("() => document.querySelectorAll('#massl-label .badge').length === 2")
    assert len(collection.labels.every()) == before + 2

    # What fits no class has a key of its own.
    board.locator(".picture").nth(5).click()
    page.keyboard.press("0")
    page.wait_for_function("() => document.querySelectorAll('#massl-label .badge').length === 3")
    assert collection.labels.counts()[NONE_OF_THESE] == 1
    page.keyboard.press("Control+z")
    page.wait_for_function("() => document.querySelectorAll('#massl-label .badge').length === 2")

    # One is rejected, the page accepted by a key, and both are taken back by Ctrl-Z.
    board.locator(".picture").nth(4).click()
    page.keyboard.press("r")
    _until(page, "Rejected 1 picture", ".bar")
    proposals = board.locator(".tile .score").count()
    assert proposals > 0
    page.keyboard.press("a")
    _until(page, "Accepted", ".bar")
    accepted = len(collection.labels.every())
    assert accepted == before + 2 + proposals
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")  # while the first is answered: not lost
    _until(page, "Undone: rejected 1 picture", ".bar")
    assert len(collection.labels.every()) == before + 2
    assert collection.rejections.by_image() == {}

    board.get_by_role("button", name="Learning curve").click()
    page.wait_for_selector("#massl-label .plot .dot")
    assert "labels" in board.locator(".curve p").nth(0).inner_text()

    board.locator(".menu summary").click()
    with page.expect_download() as waiting:
        board.get_by_role("button", name="Labels and proposals (CSV)").click()
    waiting.value.save_as(tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").open(encoding="utf-8")))
    assert before + 2 <= len(rows) <= len(collection)
    assert {row["label"] for row in rows} == {"<b>bold</b>", "two"}
    board.locator(".menu summary").click()
    with page.expect_download() as waiting:
        board.get_by_role("button", name="Classifier (ONNX)").click()
    waiting.value.save_as(tmp_path / "classifier.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "classifier.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["massl.labels"]) == ["<b>bold</b>", "two"]
    side = collection.encoder.image_size
    (shares,) = session.run(["probabilities"], {"pixels": np.zeros((1, side, side, 3), np.uint8)})
    assert shares.sum() == pytest.approx(1, abs=1e-4)


def test_an_exported_classifier_has_a_name_that_cannot_be_guessed_and_old_ones_go(
    site: str, collection: Collection, tmp_path: Path
) -> None:
    for name in ("0" * 32, "../../etc", "%2e%2e%2f%2e%2e%2fetc"):
        assert httpx.get(f"{site}download/{name}/classifier.onnx").status_code in (403, 404)
    assert httpx.get(f"{site}download/{'0' * 32}/catalog.sqlite").status_code in (403, 404)
    screen = LabelScreen(collection, tmp_path)
    _label(collection, 3, "flag", "fruit")
    for _ in range(2):
        href = screen.do(Session(), {"do": "export", "format": "onnx"})["download"]["href"]
        folder = tmp_path / href.split("/")[1]
        os.utime(folder / "classifier.onnx", (0, 0))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]  # the older one is gone


def test_the_screen_fits_a_phone(visit: Visit, site: str, screen: LabelScreen) -> None:
    _label(screen.collection, 4, "flag", "fruit", "space")
    with visit(site, "Label", **PHONE) as tab:
        tab.wait_for_selector("#massl-label .tile")
        for view in ("Groups", "By class", "Learning curve"):
            tab.locator("#massl-label").get_by_role("button", name=view, exact=True).tap()
            tab.wait_for_selector(f"#massl-label .order[aria-pressed='true']:text-is('{view}')")
            assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
        tab.locator("#massl-label").get_by_role("button", name="By class", exact=True).tap()
        tab.wait_for_selector("#massl-label .tick")
        classes = tab.locator("#massl-label .bar .class:not(.none)")
        assert classes.count() == 3
        assert not classes.first.is_visible()  # nothing is selected: the bar is one line
        tab.locator("#massl-label .tick").first.tap()
        classes.first.wait_for(state="visible")
