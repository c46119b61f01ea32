"""A collection of images: scanned, embedded with ONNX Runtime, kept in SQLite, searched with FAISS, labelled.

from indexer import Collection, Encoder, Query

collection = Collection.create("photos", Encoder.load())
report = collection.update()
for result in collection.search([Query.of_file("query.jpg")]):
    print(result.rank, result.path, result.score)

`docs/library.md` has the rest, by examples.
"""

import massl  # noqa: F401 - before ONNX Runtime, whose telemetry it switches off
from indexer.collection import Collection
from indexer.encoder.onnx_encoder import Encoder, EncoderMismatch
from indexer.ingest.indexing import IndexReport
from indexer.search.engines.engine_selection import Ladder
from indexer.search.engines.faiss_engine import LADDER, Cells, Exact, FastScan
from indexer.search.engines.interface import Engine, IndexKind, VectorIndex
from indexer.search.query import Query, Result
from indexer.storage.collection_storage import CollectionBusy
from indexer.store.labels import Label
from indexer.store.vectors import VectorSource

__all__ = [
    "LADDER",
    "Cells",
    "Collection",
    "CollectionBusy",
    "Encoder",
    "EncoderMismatch",
    "Engine",
    "Exact",
    "FastScan",
    "IndexKind",
    "IndexReport",
    "Label",
    "Ladder",
    "Query",
    "Result",
    "VectorIndex",
    "VectorSource",
]
