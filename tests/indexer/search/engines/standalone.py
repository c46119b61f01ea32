"""A Milvus server, that of the PyPI package `milvus` (2.3.5), in processes of its own.

The package needs an environment of its own; `benchmarks/milvus.py` says how to make one.
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SERVER = """
import sys
from milvus import MilvusServer
server = MilvusServer()
server.set_base_dir(sys.argv[1])
server.listen_port = int(sys.argv[2])
server.start()
print(server.listen_port, flush=True)  # another one where this is taken
sys.stdin.read()
"""


class Server:
    """A server in processes of its own, its data in a folder.

    Attributes:
        address: for `MilvusServer`.
    """

    def __init__(self, python: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._start = [python, "-c", SERVER, str(folder), str(port)]
        self.start()

    def start(self) -> None:
        """Waits until it answers."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._start, **pipes)
        assert self._process.stdout
        told = self._process.stdout.readline()
        if not told:
            raise RuntimeError("the server did not start; there can be one on a machine")
        self.address = f"http://127.0.0.1:{int(told)}"

    def processes(self) -> list[psutil.Process]:
        """All of it."""
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    def memory(self) -> float:
        """MiB in use."""
        return sum(process.memory_info().rss for process in self.processes()) / 2**20

    def kill(self) -> None:
        """As a power failure would."""
        for process in reversed(self.processes()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
