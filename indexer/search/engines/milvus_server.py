"""A collection's vectors in a Milvus server, or in a file of milvus-lite: rows written, counted, searched, dropped.

A row is an image: its id, its vector, its path and the time of its file, which filters ask for. One more row, with the
id -1, is the stamp: who wrote here last. It is written last, so that what is half filled has none.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import Preparing
from massl.core.errors import MasslError
from massl.core.printable import visible

TOKEN = "MASSL_ENGINE_TOKEN"  # "user:password" or a key, of a server that asks for one
OLDEST = (2, 3)  # version of a server that has upserts
MOST_RESULTS = 16_384  # that a server gives for a query, and for a question
EFFORTS = (32, 64, 128, 256, 512, 1024)  # candidates that a search of the graph keeps (ef)
_CONNECTING = 10.0  # seconds
_SEARCHING = 20.0
_WRITING = 120.0
_INDEXING = 24 * 3600.0
_BYTES = 8 << 20  # of one message; servers take 64 MiB
_STAMP = -1
_PATH = 16_384  # characters: a path of 4,096 bytes, each as three
_OUTER = {"M": 16, "efConstruction": 200}
_FIELDS = {"id", "vector", "path", "mtime"}
_DELETES = 1  # the level of a segment that holds nothing but what was deleted
_COMPARED = 4_000  # images of a segment up to which a server compares each, as it has too few to make cells of


class Away(MasslError):
    """The server can't be asked at present."""


class NotThere(Away):
    """The server doesn't have the collection."""


class MilvusServer:
    """One server, connected when it is first asked. Safe to share by threads.

    Args:
        address: `http://HOST:PORT`, or a path that ends with `.db`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client: Any = None

    @property
    def is_lite(self) -> bool:
        """Whether it is a file of milvus-lite, which this process alone can open."""
        return is_file(self.address)

    def check(self) -> None:
        """Raises `Away` if it can't be reached, refuses, or is too old."""
        with self._asked():
            version = str(self._connected().get_server_version(timeout=_CONNECTING))
        if not self.is_lite and _number(version) < OLDEST:
            raise Away(f"{self} is version {visible(version[:40])}; massl needs {'.'.join(map(str, OLDEST))} or newer")

    def stamp(self, name: str) -> dict[str, Any] | None:
        """Who wrote to a collection last; empty where it is half filled; None where there is no such collection."""
        with self._asked():
            client = self._connected()
            if not client.has_collection(name, timeout=_SEARCHING):
                return None
            told = client.describe_collection(name, timeout=_SEARCHING)
            if not _FIELDS.issubset(field["name"] for field in told["fields"]):
                return {"stamp": None}  # somebody's own, who took the name
            if not self.is_lite and not client.list_indexes(name, timeout=_SEARCHING):
                return {}  # a kill came before `prepare`: a server loads nothing that it has not indexed
            client.load_collection(name, timeout=_WRITING)
            rows = self._query(name, f"id == {_STAMP}", ["path"])
        try:
            found = json.loads(rows[0]["path"]) if rows else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def create(self, name: str, dim: int) -> None:
        """Makes an empty collection."""
        from pymilvus import DataType, MilvusClient

        with self._asked():
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
            schema.add_field("path", DataType.VARCHAR, max_length=_PATH)
            schema.add_field("mtime", DataType.INT64)
            self._connected().create_collection(name, schema=schema, consistency_level="Strong", timeout=_WRITING)

    def write(
        self, name: str, ids: NDArray[np.int64], vectors: NDArray[np.float32], places: Mapping[int, tuple[bytes, int]]
    ) -> None:
        """Adds images, or replaces them: unit vectors float32 `[n, D]`; path and time in nanoseconds of each."""
        some = max(1, _BYTES // (4 * vectors.shape[1] + 1_000))
        for start in range(0, len(ids), some):
            rows = [
                {"id": image, "vector": vector, "path": quoted(places[image][0]), "mtime": places[image][1]}
                for image, vector in zip(ids[start : start + some].tolist(), vectors[start : start + some], strict=True)
                if image in places
            ]
            if rows:
                with self._asked():
                    self._connected().upsert(name, rows, timeout=_WRITING)

    def delete(self, name: str, ids: Sequence[int]) -> None:
        """Removes images; those that aren't there cost nothing."""
        for start in range(0, len(ids), MOST_RESULTS):
            with self._asked():
                self._connected().delete(name, ids=list(ids[start : start + MOST_RESULTS]), timeout=_WRITING)

    def seal(self, name: str, dim: int, stamp: Mapping[str, Any]) -> None:
        """Writes who wrote here last."""
        first = np.zeros(dim, np.float32)
        first[0] = 1
        row = {"id": _STAMP, "vector": first, "path": json.dumps(stamp), "mtime": -1}
        with self._asked():
            self._connected().upsert(name, [row], timeout=_WRITING)

    def prepare(self, name: str, count: int, preparing: Preparing) -> None:
        """Has the server index what was written, waits for it, and loads it to be searched.

        What it still merges then is searched by the indexes of the parts: a server merges for long, and indexes anew.
        """
        with self._asked():
            client = self._connected()
            client.flush(name, timeout=_INDEXING)
            parameters = client.prepare_index_params()
            if self.is_lite:  # its graph finds nothing where few images pass a filter
                parameters.add_index("vector", index_type="FLAT", metric_type="IP")
            else:
                parameters.add_index("vector", index_type="HNSW", metric_type="IP", params=_OUTER)
            client.create_index(name, parameters, timeout=_INDEXING, sync=False)
            while True:
                told = self._index(name)
                indexed, pending = (int(told.get(f"{kind}_rows") or 0) for kind in ("indexed", "pending_index"))
                if indexed >= count or (not pending and told.get("state", "Finished") == "Finished"):
                    break
                preparing("indexing", indexed, count)
                time.sleep(0.5)
            client.load_collection(name, timeout=_INDEXING)

    def wait_for_index(self, name: str, count: int, few: int, preparing: Preparing) -> None:
        """Waits until a server searches by its index, all but a few images."""
        while (without := self.without_index(name)) > few:
            preparing("indexing", max(0, count - without), count)
            time.sleep(0.5)

    def without_index(self, name: str) -> int:
        """How many images a server searches by cells that it made in haste, which miss more than the index does.

        So it searches a segment (a part of a collection) that it wrote anew of others, or loaded after a restart, until
        the index of that is built. Of what was just sent it compares each image, or enough.
        """
        if self.is_lite:
            return 0
        with self._asked():
            if not self._index(name).get("pending_index_rows"):
                return 0
            loaded = self._connected().list_loaded_segments(name, timeout=_SEARCHING)
        return sum(
            segment.num_rows
            for segment in loaded
            if not segment.index_name
            and str(segment.state) == "Sealed"
            and segment.level != _DELETES
            and segment.num_rows > _COMPARED
        )

    def count(self, name: str) -> int:
        """How many images there are."""
        with self._asked():
            rows = self._query(name, "", ["count(*)"])
        return int(rows[0]["count(*)"]) - 1

    def places(self, name: str, first: int, last: int) -> dict[int, tuple[str, int]]:
        """Quoted path and time of the images from one id to another, at most `MOST_RESULTS`."""
        with self._asked():
            rows = self._query(name, f"id >= {first} and id <= {last}", ["id", "path", "mtime"])
        return {int(row["id"]): (row["path"], int(row["mtime"])) for row in rows}

    def search(
        self, name: str, queries: NDArray[np.float32], k: int, condition: str, effort: int, strong: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As `VectorIndex.search`, by a condition on rows; missing results are -inf and -1."""
        scores = np.full((len(queries), k), -np.inf, np.float32)
        found = np.full((len(queries), k), -1, np.int64)
        limit = min(MOST_RESULTS, k + (not condition))  # the stamp may be among them
        some = max(1, min(MOST_RESULTS, (_BYTES // 4) // (12 * limit + 4 * queries.shape[1])))
        for start in range(0, len(queries), some):
            with self._asked():
                answers = self._connected().search(
                    name,
                    list(queries[start : start + some]),
                    filter=condition,
                    limit=limit,
                    output_fields=["id"],
                    search_params={"metric_type": "IP", "params": {"ef": max(effort, limit)} if effort else {}},
                    consistency_level="Strong" if strong else "Bounded",
                    timeout=_SEARCHING,
                )
            for row, hits in enumerate(answers, start):
                kept = [(hit["distance"], hit["id"]) for hit in hits if hit["id"] != _STAMP][:k]
                if kept:
                    scores[row, : len(kept)], found[row, : len(kept)] = zip(*kept, strict=True)
        return scores, found

    def drop(self, name: str) -> None:
        """Removes a collection."""
        with self._asked():
            self._connected().drop_collection(name, timeout=_WRITING)

    def _query(self, name: str, condition: str, fields: list[str]) -> list[dict[str, Any]]:
        return list(
            self._connected().query(
                name, filter=condition, output_fields=fields, consistency_level="Strong", timeout=_SEARCHING
            )
        )

    def _index(self, name: str) -> dict[str, Any]:
        """What the server tells of the index of a collection."""
        return dict(self._connected().describe_index(name, "vector", timeout=_SEARCHING) or {})

    def _connected(self) -> Any:
        if self._client is None:
            # Else it reads the environment from a file .env in any folder above the one that it is installed in.
            os.environ.setdefault("PYTHON_DOTENV_DISABLED", "1")
            from pymilvus import MilvusClient

            for logger in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):  # we say it in a line of our own
                logging.getLogger(logger).setLevel(logging.CRITICAL)
            self._client = MilvusClient(self.address, token=os.environ.get(TOKEN, ""), timeout=_CONNECTING)
        return self._client

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Has what goes wrong be one line.

        Raises:
            NotThere: the collection is gone.
            Away: anything else.
        """
        import grpc
        from pymilvus.exceptions import ErrorCode, MilvusException

        try:
            yield
        except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
            said = getattr(error, "message", "") or (error.details() if isinstance(error, grpc.Call) else "")
            why = visible(" ".join((said or str(error)).split())[:200])
            gone = getattr(error, "code", None) == ErrorCode.COLLECTION_NOT_FOUND or "collection not found" in why
            self._client = None if not gone and not self.is_lite else self._client
            raise (NotThere if gone else Away)(f"{self} can't be asked: {why}") from None

    def __str__(self) -> str:
        return f"Milvus at {visible(self.address[:200])}"


def is_file(address: str) -> bool:
    """Whether an address is a file of milvus-lite."""
    return "://" not in address


def check_address(address: str) -> None:
    """Raises a `MasslError` unless an address is one of a server or a file, without a password."""
    if not address:
        raise MasslError("say where Milvus is, with --engine-uri http://HOST:19530")
    if is_file(address):
        if not address.endswith(".db"):
            raise MasslError(f"{visible(address[:200])} is neither http://HOST:PORT of a server nor a .db file")
        return
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise MasslError(f"{visible(address[:200])} is no address of a server, as http://HOST:19530")
    if parts.username is not None or parts.password is not None:
        raise MasslError(f"leave the password out of the address, which the index keeps, and set {TOKEN}=USER:PASSWORD")


def quoted(path: bytes) -> str:
    """A path as a row has it: ASCII whatever its bytes are, without quotes; what lies below a folder begins alike."""
    return quote_from_bytes(path, safe="/ -._~")


def _number(version: str) -> tuple[int, ...]:
    """A version's first two numbers; (0,) where it has none, as a server's own builds."""
    try:
        return tuple(int(part) for part in version.lstrip("v").split(".")[:2])
    except ValueError:
        return OLDEST
