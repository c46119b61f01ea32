"""Tests. Those that run beside others, one process a core, leave the other cores to these."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything that multiplies matrices is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
