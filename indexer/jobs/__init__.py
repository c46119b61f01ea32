"""Work in threads: done ahead of whoever takes it, or in the background with progress."""
