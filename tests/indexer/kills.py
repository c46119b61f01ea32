"""Code that takes a collection to another encoder or size, and is killed as it forgets the old embeddings."""

from __future__ import annotations

import signal
import subprocess
import sys


def killed_while_forgetting(moment: str, rebuild: str) -> None:
    """Runs `rebuild`, a statement, in a process that is killed just `before` or just `after` it commits."""
    code = f"""if True:
        import os, signal, sqlite3
        from indexer import Collection, Encoder; from indexer.store import catalog
        class Killed(sqlite3.Connection):
            forgotten = False
            def execute(self, statement, *arguments):
                last = self.forgotten and statement == "COMMIT"
                self.forgotten |= "embedding = NULL" in statement
                if last and {moment!r} == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                found = super().execute(statement, *arguments)
                if last:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found
        connect = sqlite3.connect
        catalog.sqlite3.connect = lambda *a, **k: connect(*a, factory=Killed, **k)
        {rebuild}"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
