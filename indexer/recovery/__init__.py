"""A damaged catalog made sound, and what people said brought back from the journal."""
