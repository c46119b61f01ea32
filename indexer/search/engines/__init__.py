"""Search engines behind one interface, and which of them a collection uses."""
