"""A training run: the loop, one step, loading, several processes, and what is watched meanwhile."""
