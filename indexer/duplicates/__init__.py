"""Duplicates: candidates, verification by pixels, groups, and the plan to remove them."""
