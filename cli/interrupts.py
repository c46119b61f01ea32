"""Ctrl-C, put off where Python would lose it or a module that is being loaded would break on it."""

from __future__ import annotations

import signal
from types import FrameType

RETRY = 0.01  # seconds

# What is raised here is printed and forgotten.
_LOST = {
    "_get_module_lock.<locals>.cb",
    "WeakSet.__init__.<locals>._remove",
    "WeakKeyDictionary.__init__.<locals>.remove",
    "WeakValueDictionary.__init__.<locals>.remove",
}
# What is raised here comes out as an ImportError that blames the installation, or leaves half a module.
_BREAKS = {"ExtensionFileLoader.create_module", "ExtensionFileLoader.exec_module"}


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler: Ctrl-C as Python has it, but that it comes back in a moment from where it would do harm.

    Raises:
        KeyboardInterrupt: where it is safe.
    """
    if _is_fragile(frame) and hasattr(signal, "setitimer"):  # Windows has no timers
        # Not a thread: to start one takes locks that the interrupted code may hold.
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, RETRY)
        return
    raise KeyboardInterrupt


def _is_fragile(frame: FrameType | None) -> bool:
    while frame:
        name = frame.f_code.co_qualname
        if name in _LOST or name in _BREAKS or name.endswith("__del__"):
            return True
        frame = frame.f_back
    return False
