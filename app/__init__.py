"""The web page of a collection: search, label, classify. `app.server` serves it; the deciding is the indexer's."""

import massl  # noqa: F401 - before Gradio, whose telemetry it switches off
