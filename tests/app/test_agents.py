"""What programs that speak MCP can do with a running page, by the official client."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from PIL import Image

from app.access.request_filter import MAX_CALL
from app.agents.tools import AgentTools
from app.server import Agents, check_agents, serve
from indexer import Collection, Encoder
from massl.core.errors import MasslError
from tests.indexer.tiny import write_encoder

LOGIN = ("ada", "secret")
PLAIN = {"trust_env": False, "timeout": 60}
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPTS = {"Accept": "application/json, text/event-stream"}
TOOLS = {"search", "similar", "classify", "select", "info", "label", "tag"}


@pytest.fixture(scope="module")
def looking(collection: Collection, site: str) -> Iterator[str]:
    """A page behind a password, with agents that may look."""
    with contextlib.ExitStack() as stack:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            address = stack.enter_context(serve(collection, "127.0.0.1", 0, LOGIN, agents=Agents.read))
        assert said.getvalue() == ""  # Gradio would name an address that lets nobody in
        yield str(address)


@pytest.fixture(scope="module")
def labelling(collection: Collection, site: str) -> Iterator[str]:
    """A page of this machine alone, below a path, with agents that may label."""
    with serve(collection, "127.0.0.1", 0, None, root_path="/photos", agents=Agents.write) as address:
        yield str(address)


def _header(user: str = "ada", password: str = "secret") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _with_client(site: str, ask: Callable[[Any], Awaitable[Any]], headers: dict[str, str] | None = None) -> Any:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def run() -> Any:
        async with (
            httpx.AsyncClient(headers=headers, **PLAIN) as http,
            streamable_http_client(f"{site}mcp", http_client=http) as (reading, writing, _),
            ClientSession(reading, writing) as client,
        ):
            await client.initialize()
            return await ask(client)

    with ThreadPoolExecutor(1) as pool:  # a browser's loop may be running in this one
        return pool.submit(anyio.run, run).result()


def _call(site: str, tool: str, given: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    return _with_client(site, lambda client: client.call_tool(tool, given), headers)


def _told(answer: Any) -> dict[str, Any]:
    assert not answer.isError, answer.content
    return json.loads(answer.content[0].text)


def test_an_agent_lists_the_tools_and_searches_by_path_by_content_and_by_upload(looking: str, photos: Path) -> None:
    tools = _with_client(looking, lambda client: client.list_tools(), _header()).tools
    assert {tool.name for tool in tools} == TOOLS
    assert all(tool.description and tool.inputSchema["type"] == "object" for tool in tools)
    (search,) = (tool for tool in tools if tool.name == "search")
    assert search.inputSchema["required"] == ["picture"]
    assert "base64" in search.inputSchema["properties"]["picture"]["description"]

    data = (photos / "flag" / "brazil.jpg").read_bytes()
    uploaded = httpx.post(f"{looking}gradio_api/upload", files={"files": ("x", data)}, headers=_header(), **PLAIN)
    content = base64.b64encode(data).decode()
    for picture in ("flag/brazil.jpg", content, f"data:image/jpeg;base64,{content}", uploaded.json()[0]):
        answer = _call(looking, "search", {"picture": picture, "k": 5, "thumbnails": 2}, _header())
        results = _told(answer)["results"]
        assert len(results) == 5
        pictures = [item for item in answer.content if item.type == "image"]
        assert [item.mimeType for item in pictures] == ["image/webp"] * 2
        assert max(Image.open(io.BytesIO(base64.b64decode(pictures[0].data))).size) <= 320
        # By its path it is left out itself; by its content it finds itself.
        assert (results[0]["path"] == "flag/brazil.jpg") == (picture != "flag/brazil.jpg")
        assert answer.content[1].text == results[0]["path"]


def test_an_agent_asks_for_similar_ones_classes_a_subset_and_what_there_is(
    labelling: str, unlabelled: Collection
) -> None:
    tools = _with_client(labelling, lambda client: client.list_tools()).tools
    assert {tool.name for tool in tools} == TOOLS
    told = _told(_call(labelling, "info", {}))
    assert (told["indexed"], told["can_label"]) == (len(unlabelled), True)
    assert str(unlabelled.root) not in json.dumps(told)
    chosen = _call(labelling, "select", {"n": 4})
    assert len(_told(chosen)["results"]) == len([item for item in chosen.content if item.type == "image"]) == 4
    given = {"paths": ["flag/brazil.jpg"], "unlike": [_told(chosen)["results"][-1]["path"]], "k": 3, "thumbnails": 0}
    assert len(_told(_call(labelling, "similar", given))["results"]) == 3

    flags = [path for _, path in unlabelled.images.ready() if path.startswith("flag/")][:3]
    others = [path for _, path in unlabelled.images.ready() if not path.startswith("flag/")][-3:]
    assert _told(_call(labelling, "label", {"paths": flags, "label": "flag"}))["labels"] == {"flag": 3}
    _told(_call(labelling, "label", {"paths": others, "label": "other"}))
    assert {item.author for item in unlabelled.labels.every()} == {"agent"}
    classified = _told(_call(labelling, "classify", {"k": 3}))
    assert len(classified["predictions"]) == 3
    assert sum(classified["predicted"].values()) == len(unlabelled)
    back = _told(_call(labelling, "label", {"paths": flags, "label": ""}))
    assert [row["before"] for row in back["labelled"]] == ["flag"] * 3
    assert unlabelled.labels.counts() == {"other": 3}
    blank = _call(labelling, "label", {"paths": others, "label": "  "})  # no wish to take theirs away
    assert "The label is empty" in blank.content[0].text
    assert unlabelled.labels.counts() == {"other": 3}

    tagged = _told(_call(labelling, "tag", {"paths": flags, "add": ["cloth", "red"], "remove": ["gone"]}))
    assert (tagged["added"], tagged["removed"], tagged["tags"]) == (6, 0, {"cloth": 3, "red": 3})
    assert {item.author for item in unlabelled.tags.every()} == {"agent"}
    _told(_call(labelling, "tag", {"paths": flags[:1], "remove": ["red"]}))
    assert _told(_call(labelling, "info", {}))["tags"] == {"cloth": 3, "red": 2}
    found = _told(_call(labelling, "search", {"picture": flags[0], "tag": "red", "thumbnails": 0}))
    assert {row["path"] for row in found["results"]} == set(flags[1:])
    answer = _call(labelling, "tag", {"paths": flags, "add": ["a,b"]})
    assert answer.isError
    assert "commas separate tags" in answer.content[0].text


def test_an_agent_that_may_only_look_is_told_which_option_lets_it_label(looking: str, unlabelled: Collection) -> None:
    unlabelled.labels.add("kept", [unlabelled.images.id_of("flag/brazil.jpg")], "me")
    for label in ("flag", ""):
        answer = _call(looking, "label", {"paths": ["flag/brazil.jpg"], "label": label}, _header())
        assert answer.isError
        (line,) = answer.content[0].text.splitlines()
        assert "Labelling is off here: whoever runs massl serve can allow it with --mcp-write" in line
    answer = _call(looking, "tag", {"paths": ["flag/brazil.jpg"], "add": ["red"]}, _header())
    assert answer.isError
    assert "--mcp-write" in answer.content[0].text
    assert not unlabelled.tags.every()
    assert _told(_call(looking, "info", {}, _header()))["can_label"] is False
    assert unlabelled.labels.counts() == {"kept": 1}
    unlabelled.labels.remove([unlabelled.images.id_of("flag/brazil.jpg")])
    assert not unlabelled.labels.every()


@pytest.mark.parametrize(
    ("tool", "given", "said"),
    [
        ("search", {"picture": "/etc/passwd"}, "neither a path in the collection nor a picture in base64"),
        ("search", {"picture": "../outside.jpg"}, "neither a path in the collection"),
        ("search", {"picture": base64.b64encode(b"no picture").decode()}, "can't be used as a picture"),
        ("search", {"picture": ""}, "is empty"),
        ("similar", {"paths": ["/etc/passwd"]}, "is not in the collection"),
        ("similar", {"paths": []}, "1 to 16 paths"),
        ("select", {"by": "chance"}, "diverse, typical or balanced"),
        ("classify", {}, "Labels of at least two classes are needed"),
        ("search_1", {"picture": "x"}, "Unknown tool"),
        ("search", {"picture": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}, "alidation"),
    ],
)
def test_an_agent_is_told_what_is_wrong_in_a_sentence(
    labelling: str, unlabelled: Collection, tool: str, given: dict[str, Any], said: str
) -> None:
    answer = _call(labelling, tool, given)
    assert answer.isError
    assert said in answer.content[0].text
    assert "Traceback" not in answer.content[0].text


def test_an_agent_without_the_password_is_refused(looking: str) -> None:
    def ask(**more: str) -> httpx.Response:
        return httpx.post(f"{looking}mcp", json=HELLO, headers=ACCEPTS | more, **PLAIN)

    for wrong in ({}, _header(password="Secret"), {"Authorization": "Bearer secret"}, {"Authorization": "Basic ?"}):
        answer = ask(**wrong)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="MaSSL"'), wrong
    assert ask(**_header()).status_code == 200
    assert ask(**_header(password="x")).status_code == 401
    assert ask(**_header(), Origin="https://evil.example").status_code == 403
    assert ask(**_header(), Host="evil.example").status_code == 403
    # What the header opens: this address, and uploads for it.
    assert httpx.get(f"{looking}thumbnail/1", headers=_header(), **PLAIN).status_code == 401
    assert httpx.get(f"{looking}openapi.json", headers=_header(), **PLAIN).status_code == 401


def test_gradio_s_own_addresses_of_mcp_are_closed_and_nothing_else_is_a_tool(labelling: str, site: str) -> None:
    for path in ("gradio_api/mcp", "gradio_api/mcp/", "gradio_api/mcp/sse", "gradio_api/mcp/schema"):
        for each in (labelling, site):
            assert httpx.post(f"{each}{path}", json=HELLO, headers=ACCEPTS, **PLAIN).status_code == 403
            assert httpx.get(f"{each}{path}", headers=ACCEPTS, **PLAIN).status_code == 403
    assert httpx.get(f"{labelling}mcp", headers=ACCEPTS, **PLAIN).status_code == 405
    assert httpx.post(f"{labelling}mcp", content="{}", headers=ACCEPTS, **PLAIN).status_code == 415
    assert httpx.post(f"{site}mcp", json=HELLO, headers=ACCEPTS, **PLAIN).status_code == 404
    huge = {**HELLO, "params": {"x": "x" * MAX_CALL}}
    assert httpx.post(f"{labelling}mcp", json=huge, headers=ACCEPTS, **PLAIN).status_code == 413
    # The tools are no endpoints of the interface for programs.
    called = httpx.post(f"{labelling}gradio_api/call/agent_label", json={"data": [[], ""]}, **PLAIN)
    assert called.status_code == 404


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (check_agents(False, False), check_agents(True, False)) == (Agents.none, Agents.read)
    assert check_agents(False, True) is Agents.write
    monkeypatch.setattr("app.server.find_spec", lambda name: None)
    with pytest.raises(MasslError, match=r"pip install 'massl\[mcp\]'"):
        check_agents(True, False)
    assert check_agents(False, False) is Agents.none


def test_half_a_character_is_answered_in_a_sentence(labelling: str, photos: Path) -> None:
    half = "\ud800.jpg"
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("search", {"picture": half}, "is neither a path"),
        ("search", {"picture": f"{photos}/{half}"}, "is neither a path"),
        ("select", {"label": half}, "is not valid text"),
        ("select", {"folder": half}, "is not valid text"),
        ("similar", {"paths": [half]}, "is not in the collection"),
        ("label", {"paths": [half], "label": "x"}, "is not in the collection"),
    ]
    for tool, given, reason in calls:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": given}}
        # As bytes: the clients that are tried here refuse to send it.
        headers = ACCEPTS | {"Content-Type": "application/json"}
        answer = httpx.post(f"{labelling}mcp", content=json.dumps(call).encode(), headers=headers, **PLAIN)
        (line,) = [line for line in answer.text.splitlines() if line.startswith(("data: ", "{"))]
        told = json.loads(line.removeprefix("data: "))["result"]
        assert told["isError"]
        assert reason.lower() in told["content"][0]["text"].lower()


def test_the_largest_picture_that_is_promised_can_be_sent(labelling: str) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((1_500, 1_900), 80).save(buffer, "PNG", compress_level=0)
    data = buffer.getvalue()
    assert 2_800_000 < len(data) <= 3_000_000
    content = base64.b64encode(data).decode()
    assert not _call(labelling, "search", {"picture": content, "k": 1, "thumbnails": 0}).isError
    answer = _call(labelling, "search", {"picture": content[:-4] + "A" * 200_000, "k": 1})
    assert "larger than 3 MB" in answer.content[0].text


def test_an_absurd_number_of_results_is_the_most_that_there_are(unlabelled: Collection, tmp_path: Path) -> None:
    tools = AgentTools(unlabelled, tmp_path, False)
    assert len(tools.search("flag/brazil.jpg", k=10**400, thumbnails=0)["results"]) == min(200, len(unlabelled) - 1)


def test_what_a_program_sends_is_not_written_to_the_terminal(labelling: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert _call(labelling, "\x1b[31mnope", {}).isError
    httpx.post(
        f"{labelling}mcp", content="[" * 200_000, headers=ACCEPTS | {"Content-Type": "application/json"}, **PLAIN
    )
    said = "".join(capfd.readouterr())
    assert "\x1b" not in said
    assert "Traceback" not in said


def test_a_body_that_is_no_call_is_refused_in_one_line(labelling: str, capfd: pytest.CaptureFixture[str]) -> None:
    bodies = {
        "no UTF-8": b'{"jsonrpc": "2.0", "id": "\xff", "method": "tools/list"}',
        "deep": b"[" * 100_000,
        "deep parameters": json.dumps(HELLO).encode().replace(b"{}", b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"),
        "large id": json.dumps(HELLO).encode().replace(b"1", b"1" * 5_000, 1),
        "huge id": json.dumps(HELLO | {"id": 1 << 70}).encode(),
        "empty": b"",
        "list": json.dumps([HELLO]).encode(),
        "half a character as id": json.dumps(HELLO | {"id": "\ud800"}).encode(),
        "half a character as tool": json.dumps(HELLO | {"method": "tools/call", "params": {"name": "\udfff"}}).encode(),
        "no id": json.dumps(HELLO | {"id": {}}).encode(),
        "nan": b'{"jsonrpc": "2.0", "id": NaN, "method": "tools/list"}',
        "no method": json.dumps(HELLO | {"method": 3}).encode(),
        "parameters": json.dumps(HELLO | {"params": []}).encode(),
        "arguments": json.dumps(HELLO | {"method": "tools/call", "params": {"name": "info", "arguments": []}}).encode(),
        "tool": json.dumps(HELLO | {"method": "tools/call", "params": {"name": "n" * 100_000}}).encode(),
    }
    headers = ACCEPTS | {"Content-Type": "application/json"}
    for name, body in bodies.items():
        answer = httpx.post(f"{labelling}mcp", content=body, headers=headers, **PLAIN)
        assert answer.status_code == 400, name
        assert 0 < len(answer.text) < 150, name
        assert "\n" not in answer.text, name
    assert httpx.post(f"{labelling}mcp", json=HELLO | {"method": "nope"}, headers=ACCEPTS, **PLAIN).status_code == 200
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("search", {"picture": "flag/brazil.jpg", "label": "z" * 100_000}),
        ("search", {"picture": "flag/brazil.jpg", "folder": "z z" * 40_000}),
        ("label", {"paths": "z" * 100_000, "label": "x"}),
        ("search", {"z" * 100_000: 1}),
    ],
)
def test_of_what_was_sent_an_error_quotes_little(labelling: str, tool: str, given: dict[str, Any]) -> None:
    answer = _call(labelling, tool, given)
    assert answer.isError
    assert len(answer.content[0].text) < 5_000


def test_a_name_that_is_no_utf8_is_taken_as_it_was_given_and_a_wrong_one_fails_no_other(
    pictures: Path, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        shutil.copy(pictures / "flag" / "brazil.jpg", root / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    shutil.copy(pictures / "flag" / "canada.jpg", root / "a.jpg")
    collection = Collection.create(root, Encoder.load(write_encoder(tmp_path / "tiny.onnx"), threads=1))
    collection.update()
    tools = AgentTools(collection, tmp_path, write=True)
    (told,) = (row["path"] for row in tools.select(2)["results"] if row["path"] != "a.jpg")
    assert told == r"caf\udce9.jpg"
    for path in (told, name):
        assert tools.search(path)["results"][0]["path"] == "a.jpg"
        assert tools.similar([path])["results"][0]["path"] == "a.jpg"
        given = tools.tag([path, "a.jpg", "gone.jpg"], add=["one"])
        assert [row["tags"] for row in given["tagged"]] == [["one"], ["one"]]
        assert given["not_in_collection"] == ["gone.jpg"]
        labelled = tools.label(["gone.jpg", path], "coffee")
        assert labelled["labels"] == {"coffee": 1}
        assert labelled["not_in_collection"] == ["gone.jpg"]
    json.dumps([given, labelled], ensure_ascii=False).encode()
    with pytest.raises(MasslError, match=r"'gone.jpg' is not in the collection"):
        tools.tag(["gone.jpg"], add=["one"])
