"""Files that people name: nothing that isn't one is waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.export import _figures
from indexer.ingest.embedding_table import facts_of
from indexer.label_formats import tag_importing
from massl.core.errors import MasslError
from massl.core.files.csv_tables import csv_columns, read_csv, read_paths
from massl.core.regular_files import read_regular
from massl.data.sources import list_entries
from massl.evaluation.datasets import read_table
from massl.evaluation.revisited import read_ground_truth
from massl.settings import read_overrides

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")

READERS: list[Callable[[Path], object]] = [
    lambda path: read_csv(path, ("path",)),
    read_paths,
    csv_columns,
    lambda path: list(tag_importing.read(path, "")),
    facts_of,
    list_entries,
    read_table,
    read_ground_truth,
    read_overrides,
    _figures,
]


@pytest.mark.parametrize("number", range(len(READERS)))
def test_a_pipe_a_socket_and_a_device_are_refused_in_a_sentence(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # the names of sockets are short
        listening.bind("socket")
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(Exception, match="not a regular file") as caught:
                READERS[number](path)
            assert isinstance(caught.value, MasslError) or "BadParameter" in type(caught.value).__name__


def test_a_file_is_read_whole_and_a_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_regular(tmp_path / "file") == b"content"
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nowhere")
