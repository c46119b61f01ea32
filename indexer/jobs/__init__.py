"""Work in threads: read ahead, or in the background with progress."""
