"""The page itself, in Gradio: tabs, and how clicks reach the actions. Slow to import: only `serve` does."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from app import scripts
from app.agents.tools import AgentTools
from app.formatting import readable
from app.progress import ProgressStrip
from app.screens import SCREENS, Screen
from app.screens.screen import said_of
from app.session import Session
from app.uploads import take
from indexer import Collection
from indexer.ingest.background_update import BackgroundUpdate
from indexer.json_results import of_classification, of_search
from massl.core.errors import MasslError
from massl.core.printable import visible

_HERE = files("app")
_SYSTEM = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
_MOST_RESULTS = 1_000


def look() -> dict[str, Any]:
    """The page's looks, as arguments of `Blocks.launch`. System fonts only: nothing is loaded from anywhere."""
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=_SYSTEM,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
    styles = sorted((_HERE / "style").iterdir(), key=lambda file: (file.name != "page.css", file.name))
    # In the head, as Gradio rewrites what it gets as `css` and stumbles over selector lists.
    return {"theme": theme, "head": f"<style>{''.join(file.read_text('utf-8') for file in styles)}</style>"}


def name_of(collection: Collection) -> str:
    """What the page of a collection is called: its folder's name, as it can be shown."""
    return visible(collection.root.resolve().name) or "Pictures"


def build(
    collection: Collection, uploads: Path, updating: BackgroundUpdate | None = None, agents: AgentTools | None = None
) -> gr.Blocks:
    """The page of a collection, ready to launch.

    Args:
        collection: what is shown.
        uploads: the folder that uploads arrive in.
        updating: what brings the collection up to date meanwhile.
        agents: what programs that speak MCP may do; nothing if left out.
    """
    name = name_of(collection)
    with gr.Blocks(title=f"{name} · MaSSL", analytics_enabled=False, fill_width=True) as blocks:
        session = gr.State(Session())  # `app.access.retention` says for how long
        gr.HTML(f"<h1>{html.escape(name)}</h1>", elem_classes="massl-title", js_on_load=None)
        gr.HTML(
            value=None,
            html_template='<div class="massl-progress" role="status"></div>',
            js_on_load=scripts.starting("progress"),
            apply_default_css=False,
            server_functions=[_function(ProgressStrip(collection, updating).progress)],
        )
        with gr.Tabs(elem_classes="massl-tabs"):
            for first, kind in enumerate(SCREENS):
                with gr.Tab(kind.title, id=kind.key) as tab:
                    # What was labelled on one screen shows on the others as soon as one looks at them.
                    _connect(blocks, tab, session, kind(collection, uploads), opened=not first)
        _endpoints(collection, uploads)
        if agents is not None:
            from app.agents import mcp_server

            mcp_server.add_endpoints(agents, said_of)
    return blocks


def _connect(blocks: gr.Blocks, tab: gr.Tab, session: gr.State, screen: Screen, opened: bool) -> None:
    """Puts a screen into its tab; one that is `opened` is drawn as soon as the page is loaded."""

    def do(session: Session, event: gr.EventData) -> tuple[Session, dict[str, Any]]:
        return session, screen.do(session, _payload(event))

    def show(session: Session) -> tuple[Session, dict[str, Any]]:
        return session, screen.do(session, {"do": "start"})

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    board = gr.HTML(
        value=None,
        # Constant: the values go to the script, never through a template, as file names are anyone's.
        html_template=f'<div class="massl-board" data-screen="{screen.key}"></div>',
        js_on_load=scripts.starting(screen.key),
        apply_default_css=False,
        elem_id=f"massl-{screen.key}",
        server_functions=[_function(each) for each in screen.functions] or None,
    )
    # "multiple": by default Gradio drops what is done before the last answer is quite through, a fast key for example.
    board.act(do, [session], [session, board], trigger_mode="multiple", **quiet)
    tab.select(show, [session], [session, board], **quiet)
    if opened:
        blocks.load(show, [session], [session, board], **quiet)


def _function(answer: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """As Gradio wants what a script asks for: a plain function, of the same name; an error is answered as `error`."""

    def call(data: Any = None) -> dict[str, Any]:
        try:
            return answer(data)
        except Exception as error:  # the edge, as in Screen.do
            return {"error": said_of(error)}

    call.__name__ = answer.__name__
    return call


def _payload(event: gr.EventData) -> dict[str, Any]:
    data = event._data
    return data if isinstance(data, dict) else {}


def _endpoints(collection: Collection, uploads: Path) -> None:
    """The two endpoints for programs, with the JSON of the commands of the same names."""

    def search(image: dict, k: int = 20) -> dict:
        """Finds the pictures most like an uploaded one."""
        try:
            k = _count(k)
            path = image.get("path") if isinstance(image, dict) else None
            upload = take(path, uploads, collection.encoder.resize, rendering=collection.meta.rendering)
            started = time.perf_counter()
            found = collection.search([upload.query], k)
        except MasslError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return _answer(of_search(found, started), "results")

    def classify() -> dict:
        """Predicts a class for every picture from the labels so far."""
        try:
            described = of_classification(collection, collection.fewshot.classify())
        except MasslError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return _answer(described, "predictions")

    gr.api(search, api_name="search", concurrency_limit=2)
    gr.api(classify, api_name="classify", concurrency_limit=1)


def _count(k: object) -> int:
    """How many results a program asks for. What a number can't be is said, rather than changed to what it can be."""
    if isinstance(k, bool) or not isinstance(k, (int, float)) or k not in range(1, _MOST_RESULTS + 1):
        raise MasslError(f"k, the number of results, must be a whole number from 1 to {_MOST_RESULTS:,}, as 20")
    return int(k)


def _answer(described: dict[str, Any], rows: str) -> dict[str, Any]:
    """As a command prints it, with paths that JSON can carry."""
    return {"schema": 1, **described, rows: [row | {"path": readable(row["path"])} for row in described[rows]]}
