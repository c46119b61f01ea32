"""The interface for programs, by the example that the documentation gives."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.server import serve
from indexer import Collection
from indexer.fewshot.label_state import CollectionFewshot
from tests.app.conftest import FOLDER, HOSTILE, PHONE, Visit
from tests.app.test_server import _left_over
from tests.forked import Forks

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documentation_s_example_runs(
    site: str, photos: Path, unlabelled: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "reference" / "page.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    images = [image for image, _ in unlabelled.images.ready()]
    unlabelled.labels.add("one", images[:3], "test")
    unlabelled.labels.add("two", images[-3:], "test")
    before = _left_over()
    names = {"address": site, "example": str(photos / "flag" / "brazil.jpg")}
    exec(compile(block, "docs/reference/page.md", "exec"), names)
    found, classified = names["found"], names["sorted_"]
    assert [result["rank"] for result in found["results"]] == [1, 2, 3, 4, 5]  # type: ignore[index]
    assert capsys.readouterr().out.startswith("1 flag/brazil.jpg 1.0")
    assert classified["labels"] == {"one": 3, "two": 3}  # type: ignore[index]
    assert len(classified["predictions"]) == len(images)  # type: ignore[index]
    assert _left_over() == before


def test_a_program_is_told_what_is_wrong_in_a_sentence(site: str, unlabelled: Collection, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(site, download_files=False, verbose=False)
    (tmp_path / "x.jpg").write_text("no picture")
    with pytest.raises(AppError, match="This file can't be used as a picture: not an image"):
        client.predict(handle_file(tmp_path / "x.jpg"), 5, api_name="/search")
    with pytest.raises(AppError, match="labels of at least two classes are needed"):
        client.predict(api_name="/classify")
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/search", "/classify"}


def test_the_endpoints_and_the_commands_give_the_same_json(
    forks: Forks, site: str, photos: Path, unlabelled: Collection
) -> None:
    from gradio_client import Client, handle_file

    def told(*arguments: object) -> dict[str, Any]:
        return json.loads(forks.run([*arguments, "--json"]).stdout)

    client = Client(site, download_files=False, verbose=False)
    images = [image for image, _ in unlabelled.images.ready()]
    unlabelled.labels.add("one", images[:3], "test")
    unlabelled.labels.add("two", images[-3:], "test")
    picture = photos / "flag" / "brazil.jpg"
    page, command = (
        client.predict(handle_file(picture), 7, api_name="/search"),
        told("search", photos, picture, "-k", 7),
    )
    assert min(page.pop("milliseconds"), command.pop("milliseconds")) > 0
    assert page == command
    assert client.predict(api_name="/classify") == told("classify", photos)


PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 60}


def _told(schema: dict[str, Any], schemas: dict[str, Any], value: Any) -> None:
    """What an answer holds is what the document says, name by name."""
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    kinds = {
        "string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list,
        "null": type(None),
    }  # fmt: skip
    named = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    assert any(isinstance(value, kinds[kind]) for kind in named), (schema, value)
    if "properties" in schema and not schema.get("additionalProperties"):
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            _told(inner, schemas, value[name])
    for item in value if isinstance(value, list) and "items" in schema else ():
        _told(schema["items"], schemas, item)


def test_the_interface_is_as_its_openapi_document_says(site: str, photos: Path, unlabelled: Collection) -> None:
    told = httpx.get(f"{site}openapi.json", **PLAIN).json()
    schemas, paths = told["components"]["schemas"], told["paths"]
    assert {path.strip("/") for path in paths} == {
        "gradio_api/upload",
        *(f"gradio_api/call/{name}{rest}" for name in ("search", "classify") for rest in ("", "/{event_id}")),
    }
    images = [image for image, _ in unlabelled.images.ready()]
    unlabelled.labels.add("one", images[:3], "test")
    unlabelled.labels.add("two", images[-3:], "test")

    def asked(path: str, **given: Any) -> Any:
        answer = httpx.post(f"{site}{path.lstrip('/')}", **given, **PLAIN)
        assert answer.status_code == 200, answer.text
        kinds = paths[path]["post"]["responses"]["200"]["content"]["application/json"]
        _told(kinds["schema"], schemas, answer.json())
        return answer.json()

    (uploaded,) = asked("/gradio_api/upload", files={"files": (photos / "flag" / "brazil.jpg").read_bytes()})
    for name, data, schema in (("search", [{"path": uploaded}, 3], "Search"), ("classify", [], "Classification")):
        path = f"/gradio_api/call/{name}"
        given = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["data"]
        assert given.get("minItems", 0) <= len(data) <= given["maxItems"]
        event = asked(path, json={"data": data})["event_id"]
        stream = httpx.get(f"{site}{path[1:]}/{event}", **PLAIN).text
        assert "event: complete" in stream
        (answer,) = json.loads(stream.rpartition("data: ")[2])
        _told({"$ref": schema}, schemas, answer)
    # Gradio's own names addresses that nobody answers at.
    assert httpx.get(f"{site}gradio_api/openapi.json", **PLAIN).status_code == 403


def test_what_a_program_asks_for_wrongly_is_said_and_never_waited_for(site: str, photos: Path) -> None:
    calls = f"{site}gradio_api/call/search"

    def upload() -> str:
        files = {"files": (photos / "flag" / "brazil.jpg").read_bytes()}
        (path,) = httpx.post(f"{site}gradio_api/upload", files=files, **PLAIN).json()
        return str(path)

    def answer(path: str, k: Any) -> tuple[str, str]:
        event = httpx.post(calls, json={"data": [{"path": path}, k]}, **PLAIN).json()["event_id"]
        return event, httpx.get(f"{calls}/{event}", **PLAIN).text

    path = upload()
    for wrong in (0, -3, 1_001, 2.5, True, "5", None):
        assert "k, the number of results, must be a whole number from 1 to 1,000" in answer(path, wrong)[1], wrong
    event, found = answer(path, 2)  # what was wrong before has not used up the picture
    assert "event: complete" in found
    assert "There is no such upload: it is deleted when it was searched with" in answer(path, 2)[1]
    for gone in (event, "abc"):
        again = httpx.get(f"{calls}/{gone}", **PLAIN)
        assert (again.status_code, again.text) == (
            404, "there is no such event, or its result was fetched already; ask again",
        )  # fmt: skip


def test_the_page_for_programs_shows_all_of_it_without_scripts(site: str, visit: Visit) -> None:
    with visit(site, **PHONE) as tab:
        tab.goto(f"{site}api")
        shown = tab.locator("body").inner_text()
        told = httpx.get(f"{site}openapi.json", **PLAIN).json()
        for path, kinds in told["paths"].items():
            for kind, operation in kinds.items():
                assert f"{kind.upper()} {path}" in shown
                assert operation["summary"] in shown
        assert FOLDER in shown  # a name that wants to be a script
        assert "false_matches" in shown
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.evaluate("document.querySelectorAll('script, link, img, iframe').length") == 0


def test_a_password_is_asked_for_before_the_interface_is_told(unlabelled: Collection) -> None:
    with serve(unlabelled, "127.0.0.1", 0, ("ada", "secret"), root_path="/photos") as address:
        for name in ("api", "openapi.json"):
            assert httpx.get(f"{address}{name}", **PLAIN).status_code == 401
        with httpx.Client(**PLAIN) as client:
            assert client.post(f"{address}login", data={"username": "ada", "password": "secret"}).status_code == 200
            assert "/login" in client.get(f"{address}openapi.json").json()["paths"]
            assert "POST /login" in client.get(f"{address}api").text


def test_a_picture_that_vanishes_during_a_classification_is_told_in_a_sentence(photos: Path, tmp_path: Path) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    class Passing(CollectionFewshot):
        """A classification after which a picture is lost."""

        def classify(self) -> Any:
            result = super().classify()
            (collection.root / "flag" / "brazil.jpg").unlink(missing_ok=True)
            collection.update()
            return result

    root = tmp_path / FOLDER
    shutil.copytree(photos, root, ignore=shutil.ignore_patterns(".massl", HOSTILE))
    Collection.create(root).update()
    collection = Collection.open(root)
    collection.fewshot = Passing(collection.catalog)
    for kind in ("flag", "fruit"):
        collection.labels.add(
            kind, [image for image, path in collection.images.ready() if path.startswith(kind)][:3], "test"
        )
    with serve(collection, "127.0.0.1", 0, None) as address:
        client = Client(str(address), download_files=False, verbose=False)
        with pytest.raises(AppError, match="no longer in the collection; reload the page"):
            client.predict(api_name="/classify")
