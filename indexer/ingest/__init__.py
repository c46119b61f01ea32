"""From files to embeddings: what changed in a folder, decoded, embedded and committed in batches."""
