"""Few-shot classification: classifiers, their selection, label errors, and what to label next."""
