"""A collection of images: scanned, embedded with ONNX Runtime, kept in SQLite, searched with FAISS, labelled.

from indexer import Collection, Encoder

collection = Collection.create("photos", Encoder.load())
report = collection.update()
for result in collection.search([Query.of_file("query.jpg")]):
    print(result.rank, result.path, result.score)
"""

from indexer.collection import Collection, CollectionBusy, Query, Result
from indexer.encoder import Encoder, EncoderMismatch
from indexer.indexing import IndexReport

__all__ = ["Collection", "CollectionBusy", "Encoder", "EncoderMismatch", "IndexReport", "Query", "Result"]
