"""The tools as MCP tools, by Gradio's own server. Slow to import: only a page with agents does."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from app.agents.tools import PICTURES, AgentTools
from massl.core.errors import MasslError
from massl.core.printable import shortened

_PREFIX = "agent_"  # of the tools' endpoints in Gradio


def add_endpoints(tools: AgentTools, said_of: Callable[[Exception], str]) -> None:
    """Adds the tools to the page that is being built.

    They are not queued: Gradio calls such directly, where it would else log in to its own address without a password.

    Args:
        tools: what agents get.
        said_of: what a program is told of an error.
    """
    for tool in tools.functions:
        gr.api(_answering(tool, said_of), api_name=_PREFIX + tool.__name__, queue=False)


def restrict(blocks: gr.Blocks) -> None:
    """Leaves the server of a launched page the tools alone, and the tools to it alone."""
    # The library would write what a program sends as it is, with the terminal's escapes, and a traceback an error: to
    # its own logger, and elsewhere to the root's.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_of_the_library)
    from mcp import types

    server: Any = blocks.mcp_server_obj
    server.tool_to_endpoint = {
        endpoint.removeprefix("/" + _PREFIX): endpoint
        for endpoint in server.tool_to_endpoint.values()
        if endpoint.startswith("/" + _PREFIX)
    }
    # Gradio's own would be one text for all, and pictures as files of its own.
    server.postprocess_output_data = _contents
    handlers = server.mcp_server.request_handlers
    handlers[types.CallToolRequest] = _in_few_words(handlers[types.CallToolRequest])
    for function in blocks.fns.values():
        if str(function.api_name).startswith(_PREFIX):
            function.api_visibility = "private"


def _is_not_of_the_library(record: logging.LogRecord) -> bool:
    return "mcp" not in Path(record.pathname).parts


def _in_few_words(answer: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """The same answers; of an error no more than says what is wrong, as the library quotes all that was sent."""

    async def short(request: Any) -> Any:
        answered = await answer(request)
        if answered.root.isError:
            for content in answered.root.content:
                content.text = shortened(content.text)
        return answered

    return short


def _answering(tool: Callable[..., dict[str, Any]], said_of: Callable[[Exception], str]) -> Callable[..., Any]:
    @wraps(tool)
    def answer(*given: Any, **named: Any) -> Any:
        try:
            return tool(*given, **named)
        except Exception as error:  # the edge: agents get a sentence
            raise MasslError(said_of(error)) from None

    return answer


def _contents(data: list[dict[str, Any]], root_url: str) -> list[Any]:
    """An answer as MCP wants it: its values as JSON, then each picture below its path."""
    from mcp import types

    contents: list[Any] = []
    for answer in data:
        told = {key: value for key, value in answer.items() if key != PICTURES}
        contents.append(types.TextContent(type="text", text=json.dumps(told, ensure_ascii=False)))
        for path, picture in answer.get(PICTURES, ()):
            contents.append(types.TextContent(type="text", text=path))
            contents.append(types.ImageContent(type="image", data=picture, mimeType="image/webp"))
    return contents
