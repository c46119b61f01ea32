"""The web page of a collection: search, label, classify. `app.server` serves it; the deciding is the indexer's."""
