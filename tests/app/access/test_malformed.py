"""Whatever is sent to the page, of whatever form: the answer is a sentence, and nothing fails in the server."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.screens import SCREENS
from app.server import serve
from indexer import Collection
from tests.app.test_server import BROWSER

QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 60)
    | st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**30])
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["\0", "\ud800", "x" * 5_000, "../../etc/passwd", "1e9", "0001-01-01", "9999-12-31"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
# What actions look at, and what a browser might make of it.
IMAGES = st.lists(st.integers(-1, 60) | ANYTHING, max_size=4) | st.just([[1]]) | ANYTHING
PART = st.lists(st.floats(-2, 2) | ANYTHING, min_size=3, max_size=5) | ANYTHING
EXAMPLE = (
    st.fixed_dictionaries(
        {},
        optional={
            "image": st.integers(-1, 60) | ANYTHING,
            "content": st.text("0123456789abcdefx%", max_size=20) | ANYTHING,
            "upload": ANYTHING,
            "weight": st.sampled_from([1, -1]) | ANYTHING,
            "part": PART,
        },
    )
    | ANYTHING
)
FIELDS: dict[str, Any] = {
    "image": st.integers(0, 60) | ANYTHING,
    "images": IMAGES,
    "label": st.text(max_size=8) | ANYTHING,
    "examples": st.lists(EXAMPLE, max_size=3) | ANYTHING,
    "labels": ANYTHING,
    "folders": st.lists(st.sampled_from(["flag", "fruit", ""]) | ANYTHING, max_size=3) | ANYTHING,
    "quality": st.lists(st.sampled_from(["dark", "tiny", "ugly"]) | ANYTHING, max_size=3) | ANYTHING,
    "since": st.sampled_from(["2020-01-01", "0001-01-01", "9999-12-31", "2020-13-40"]) | ANYTHING,
    "until": st.sampled_from(["2020-01-01", "0001-01-01", "9999-12-31"]) | ANYTHING,
    "tags": st.lists(st.sampled_from(["red", "old"]) | ANYTHING, max_size=3)
    | st.sampled_from(["red, old", ","])
    | ANYTHING,
    "tagging": st.sampled_from(["all", "any", "none"]) | ANYTHING,
    "sort": st.sampled_from(["taken", "newest", "tag", "rating", "unusual", "blurred"]) | ANYTHING,
    "proposed": st.booleans() | ANYTHING,
    "n": st.integers(0, 60) | ANYTHING,
    "only": st.sampled_from(["flag", ""]) | ANYTHING,
    "all": st.booleans() | ANYTHING,
    "from": st.integers(0, 6_000) | ANYTHING,
    "serial": st.integers(0, 5) | ANYTHING,
    "seen": st.lists(st.tuples(st.integers(0, 60), st.text(max_size=3)).map(list) | ANYTHING, max_size=3) | ANYTHING,
    "view": ANYTHING,
    "section": ANYTHING,
    "sure": st.integers(-5, 105) | ANYTHING,
    "format": st.sampled_from(["csv", "coco", "csv+"]) | ANYTHING,
    "filter": ANYTHING,
    "by": st.sampled_from(["label", "folder", "match"]) | ANYTHING,
    "place": st.integers(-1, 2) | ANYTHING,
    "encoder": ANYTHING,
    "path": ANYTHING,
    "name": ANYTHING,
    "add": ANYTHING,
    "weight": ANYTHING,
}


class Failures(logging.Handler):
    """Remembers what failed in the server, which runs in this process."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(logging.Formatter().format(record))


@pytest.fixture(scope="module")
def running(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any], Failures]]:
    """A page of its own, as its labels are played with; its configuration; what failed in it."""
    root = tmp_path_factory.mktemp("played") / "photos"
    for kind in ("flag", "fruit", "space"):
        (root / kind).mkdir(parents=True)
        for file in sorted((pictures / kind).glob("*.jpg"))[:6]:
            shutil.copy(file, root / kind)
    collection = Collection.create(root)
    collection.update()
    failures = Failures()
    # By a logger's handlers also where it doesn't hand on what it says, as the web server's.
    loggers = [logging.getLogger(name) for name in ("", "uvicorn.error")]
    with serve(collection, "127.0.0.1", 0, None) as address:
        for logger in loggers:
            logger.addHandler(failures)
        try:
            yield str(address), httpx.get(f"{address}config", **BROWSER).json(), failures
        finally:
            for logger in loggers:
                logger.removeHandler(failures)


def boards(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """For each screen, the number of its event and of its element."""
    names = {part["id"]: part["props"].get("elem_id", "") for part in config["components"]}
    acts = [
        (event["id"], target[0])
        for event in config["dependencies"]
        for target in event["targets"]
        if target[1] == "act"
    ]
    return {names[element].removeprefix("massl-"): (event, element) for event, element in acts}


def post(site: str, route: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | (headers or {})
    return httpx.post(f"{site}gradio_api/{route}", content=content, headers=sent, **BROWSER)


def completed(site: str, session: str) -> dict[str, Any]:
    """What the page answered to the only event of a session."""
    with httpx.stream("GET", f"{site}gradio_api/queue/data?session_hash={session}", **BROWSER) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and (said := json.loads(line[5:]))["msg"] == "process_completed":
                return said
    raise AssertionError("no answer")


def answer_of(site: str, config: dict[str, Any], screen: str, sent: Any) -> dict[str, Any]:
    number, element = boards(config)[screen]
    session = secrets.token_hex(6)
    body = {"data": [None], "fn_index": number, "trigger_id": element, "session_hash": session, "event_data": sent}
    assert post(site, "queue/join", body).status_code == 200
    said = completed(site, session)
    assert said["success"], said
    (value,) = [part for part in said["output"]["data"] if isinstance(part, dict)]
    return value.get("value", value)


def calm(failures: Failures, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing failed, neither by what was logged nor by what Gradio prints."""
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert failures.seen == []


# What each action looks at.
LABELLING = {
    "label": "images label",
    "unlabel": "images",
    "tag": "images tags",
    "untag": "images tags",
    "accept tag": "images tags",
    "refuse tag": "images tags",
    "undo": "",
}
ACTIONS = {
    "find": {
        "ask": "examples labels folders tags tagging quality since until sort proposed",
        "upload": "path name add weight",
        "similar": "image",
        "subset": "images n by",
        "browse": "",
        "more": "from serial",
        "details": "image",
        "proposed tags": "image",
        "why": "image",
        "look": "",
        **LABELLING,
    },
    "label": {
        "view": "view",
        "sure": "sure",
        "only": "only",
        "more": "section",
        "next": "",
        "accept": "seen",
        "reject": "seen",
        "kinds": "all",
        "keep": "images",
        "regroup": "",
        "export": "format",
        "details": "image",
        "proposed tags": "image",
        "why": "image",
        **LABELLING,
    },
    "map": {"by": "by", "search": "images", "subset": "images n by", **LABELLING},
    "duplicates": {
        "find": "",
        "stop": "",
        "look": "",
        "choose": "image",
        "exact": "",
        "both": "image",
        "apart": "image",
        "forget": "image",
        "undo": "",
        "filter": "filter",
        "more": "",
        "csv": "",
    },
    "health": {"start": "", "again": "", "look": "", "more": "", "csv": "", "compare": "place encoder", "stop": ""},
}


# The same events each time: what Gradio prints of one comes late, and hypothesis can't tell whose it was.
@settings(max_examples=100, derandomize=True, **QUICK)
@given(st.data())
def test_whatever_an_event_holds_the_screen_answers(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str], data: Any
) -> None:
    site, config, failures = running
    screen = data.draw(st.sampled_from(sorted(ACTIONS)))
    name = data.draw(st.sampled_from(sorted(ACTIONS[screen])))
    sent = {"do": name, **{key: data.draw(FIELDS[key]) for key in ACTIONS[screen][name].split()}}
    drawn = answer_of(site, config, screen, data.draw(st.just(sent) | ANYTHING))
    assert drawn["screen"] == screen
    for text in (drawn.get("error"), (drawn["message"] or {}).get("text")):
        assert "Something went wrong" not in (text or ""), (sent, failures.seen[-1:])
    calm(failures, capfd)


def test_a_list_within_a_list_is_no_image(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str]
) -> None:
    site, config, failures = running
    drawn = answer_of(site, config, "find", {"do": "label", "images": [[1]], "label": "x"})
    assert drawn["message"]["text"] == "The page sent something unexpected; reload it."
    calm(failures, capfd)


@settings(max_examples=60, **QUICK)
@given(st.data())
def test_whatever_is_asked_of_the_server_s_functions_is_answered(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str], data: Any
) -> None:
    site, config, failures = running
    elements = [part["id"] for part in config["components"]]
    body = {
        "data": data.draw(ANYTHING | st.fixed_dictionaries({}, optional={"by": ANYTHING, "images": IMAGES})),
        "component_id": data.draw(st.sampled_from(elements) | st.sampled_from([9_999, -1]) | ANYTHING),
        "session_hash": data.draw(st.just("fuzz") | ANYTHING),
        "fn_name": data.draw(
            st.sampled_from(["progress", "status", "points", "kinds", "pictures", "get_config"]) | ANYTHING
        ),
    }
    answer = post(site, "component_server", body)
    assert answer.status_code in (200, 422)
    assert "Something went wrong" not in answer.text
    calm(failures, capfd)


ROUTES = ["queue/join", "component_server", "cancel", "reset", "call/search", "call/classify", "call/nothing", "call/"]
ROUTES += [
    "run/search",
    "api/search",
    "call/v2/search",
    "predict",
    "upload",
    "queue/data",
    "stream/x",
    "startup-events",
]


@settings(max_examples=80, **QUICK)
@given(st.data())
def test_no_body_of_whatever_form_is_a_failure(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str], data: Any
) -> None:
    site, config, failures = running
    events = [event["id"] for event in config["dependencies"]]
    body = data.draw(
        ANYTHING.map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=40)
        | st.sampled_from([b"", b"[" * 100_000, b"1" * 10_000, b'{"a":' * 20_000, b"NaN", b"{}", b'{"data": 1e999}'])
        | st.fixed_dictionaries(
            {},
            optional={
                "data": st.lists(ANYTHING, max_size=3) | ANYTHING,
                "fn_index": st.sampled_from([*events, 9_999, -1, True, 1.0]) | ANYTHING,
                "trigger_id": st.sampled_from([1, 9_999, None]) | ANYTHING,
                "session_hash": st.just("fuzz2") | ANYTHING,
                "event_id": ANYTHING,
                "event_data": ANYTHING,
                "batched": ANYTHING,
                "oauth_token": ANYTHING,
                "simple_format": ANYTHING,
            },
        ).map(lambda value: json.dumps(value).encode())
    )
    kind = data.draw(
        st.sampled_from(
            ["application/json"] * 4 + ["text/plain", "multipart/form-data", "multipart/form-data; boundary=b", ""]
        )
    )
    answer = post(site, data.draw(st.sampled_from(ROUTES)), body, {"Content-Type": kind})
    assert answer.status_code == 200 or 400 <= answer.status_code < 500 or answer.status_code == 503, answer.text
    calm(failures, capfd)


@settings(max_examples=40, **QUICK)
@given(st.data())
def test_whatever_a_program_asks_the_endpoints_it_gets_an_error_or_an_answer(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str], data: Any
) -> None:
    site, _, failures = running
    file = st.fixed_dictionaries(
        {},
        optional={"path": ANYTHING, "url": ANYTHING, "meta": st.just({"_type": "gradio.FileData"}), "size": ANYTHING},
    )
    arguments = data.draw(st.lists(file | ANYTHING, min_size=1, max_size=3))
    asked = post(site, "call/search", {"data": arguments})
    assert asked.status_code in (200, 403, 422)
    if asked.status_code == 200:
        event = asked.json()["event_id"]
        answer = httpx.get(f"{site}gradio_api/call/search/{event}", **BROWSER)
        assert answer.text.startswith("event: error\ndata: {")
        assert '"error": "' in answer.text
    calm(failures, capfd)


@pytest.mark.parametrize(
    "ranges", ["bytes=0-1,4-5", "bytes=0-1", "bytes=", "bytes=-", "bytes=9-1", "bytes=a-b", "bytes=0-0,0-0,0-0", "x=1"]
)
def test_parts_of_a_file_are_asked_for_in_vain(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str], ranges: str
) -> None:
    site, _, failures = running
    for path in ("thumbnail/1", "preview/1", "full/1", "theme.css", "favicon.ico"):
        whole = httpx.get(f"{site}{path}", **BROWSER)
        answer = httpx.get(f"{site}{path}", headers={"Range": ranges}, **BROWSER)
        assert (answer.status_code, answer.content) == (200, whole.content), path
    calm(failures, capfd)


@pytest.mark.parametrize(
    "path", ["queue/data?session_hash=nobody", "queue/data", "call/search/nothing", "heartbeat/%00", "upload_progress"]
)
def test_a_stream_that_nobody_feeds_is_ended_without_a_failure(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str], path: str
) -> None:
    site, _, failures = running
    try:
        with httpx.stream("GET", f"{site}gradio_api/{path}", trust_env=False, timeout=1) as answer:
            assert answer.status_code < 500
            for _ in answer.iter_bytes():
                pass
    except httpx.ReadTimeout:
        pass  # a heartbeat, which goes on
    calm(failures, capfd)


@pytest.mark.parametrize("trigger", [None, 0])
def test_what_happens_as_the_page_opens_is_answered(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str], trigger: int | None
) -> None:
    site, config, failures = running
    (number,) = {event["id"] for event in config["dependencies"] for target in event["targets"] if target[1] == "load"}
    body = {"data": [None], "fn_index": number, "trigger_id": trigger, "session_hash": "opens", "event_data": None}
    assert post(site, "queue/join", body).status_code == 200
    assert completed(site, "opens")["success"]
    calm(failures, capfd)


def test_an_element_that_the_page_does_not_have_is_told_so(
    running: tuple[str, dict[str, Any], Failures], capfd: pytest.CaptureFixture[str]
) -> None:
    site, config, failures = running
    number, _ = boards(config)["find"]
    event = {"data": [None], "fn_index": number, "session_hash": "lost", "event_data": {"do": "start"}}
    asked = {"component_id": 9_999, "fn_name": "progress", "session_hash": "lost", "data": None}
    for route, body in (("queue/join", event | {"trigger_id": 9_999}), ("component_server", asked)):
        answer = post(site, route, body)
        assert (answer.status_code, answer.text) == (422, "the page has no such element; reload it")
    calm(failures, capfd)


def test_every_action_of_every_screen_is_tried(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "flag", tmp_path / "photos")
    collection = Collection.create(tmp_path / "photos")
    screens = [kind(collection, tmp_path) for kind in SCREENS]
    there = {screen.key: {*screen.actions, *screen.asides} for screen in screens}
    assert {screen: set(actions) - {"look"} for screen, actions in ACTIONS.items()} == {
        screen: actions - {"look"} for screen, actions in there.items()
    }
