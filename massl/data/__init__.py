"""Training images: folders, lists and shards, and random samples of them."""
