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
_ENDS = "finalize._exitfunc"  # the process does what it has left to do, and ends in any case
# What is raised here comes out as an ImportError that blames the installation, or leaves half a module.
_BREAKS = {"ExtensionFileLoader.create_module", "ExtensionFileLoader.exec_module"}


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler: Ctrl-C as Python has it, but that it comes back in a moment from where it would do harm.

    Nothing happens while the process ends.

    Raises:
        KeyboardInterrupt: where it is safe.
    """
    names = _names(frame)
    if _ENDS in names:
        return
    if _is_fragile(names) and hasattr(signal, "setitimer"):  # Windows has no timers
        # Not a thread: to start one takes locks that the interrupted code may hold.
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, RETRY)
        return
    raise KeyboardInterrupt


def _names(frame: FrameType | None) -> set[str]:
    names = set()
    while frame:
        names.add(frame.f_code.co_qualname)
        frame = frame.f_back
    return names


def _is_fragile(names: set[str]) -> bool:
    return not names.isdisjoint(_LOST | _BREAKS) or any(name.endswith("__del__") for name in names)
