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
from indexer.encoder import Encoder, EncoderMismatch
from indexer.engines import LADDER, Cells, Exact, FastScan
from indexer.home import CollectionBusy
from indexer.indexing import IndexReport
from indexer.labels import Label
from indexer.ladder import Ladder
from indexer.query import Query, Result
from indexer.vectors import Engine, VectorIndex, VectorSource

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
    "IndexReport",
    "Label",
    "Ladder",
    "Query",
    "Result",
    "VectorIndex",
    "VectorSource",
]
