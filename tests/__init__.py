"""Tests. Those that run beside others, one process a core, leave the other cores to these."""

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything that multiplies matrices is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is started with signals ignored, under nohup or behind an ampersand, hands that on to the processes that it
# starts, which the tests then can't interrupt. A handler that does nothing ignores them too, and is not handed on.
for _name in ("SIGINT", "SIGHUP"):
    _number = getattr(signal, _name, None)
    if _number and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
