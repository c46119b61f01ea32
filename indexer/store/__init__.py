"""The catalog: all SQL on images, labels, decisions and vectors; thumbnails and the journal beside it."""
