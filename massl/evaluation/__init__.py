"""Measures of embeddings, on arrays: no torch and no images, so that any encoder's output can be judged.

A file a protocol; `tasks.py` runs one by its name. Sources, and what each figure means: `docs/reference/evaluation.md`.
scikit-learn and SciPy are imported where they are used, as the training loop imports this package too.
"""

from massl.evaluation.effective_rank import rankme
from massl.evaluation.knn import knn_predict, knn_top1

__all__ = ["knn_predict", "knn_top1", "rankme"]
