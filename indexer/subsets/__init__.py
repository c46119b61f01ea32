"""Subsets to take away: which images to choose, how much of a collection they cover, splits, and where they go."""
