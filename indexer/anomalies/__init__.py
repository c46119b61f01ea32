"""Unusual images: how far each is from all others, or from those known to be good, and how often that is by chance."""
