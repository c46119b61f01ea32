"""A real S3 server of this machine (moto's), for tests of what reads from object stores."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BUCKET = "pictures"


class ObjectServer:
    """A running server with one bucket.

    Attributes:
        environment: what a process needs to reach it and to be let in.
    """

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._make = ThreadedMotoServer
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }

    @property
    def files(self) -> Any:
        """The file system of fsspec, new."""
        import fsspec

        made = fsspec.filesystem("s3", skip_instance_cache=True)
        if not made.exists(BUCKET):
            made.mkdir(BUCKET)
        return made

    def put(self, folder: Path, prefix: str) -> None:
        """Copies a folder's files below a prefix."""
        files = self.files
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.pipe_file(f"{BUCKET}/{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses whoever it doesn't know, that is everybody."""
        self._let_in(b"0")
        try:
            yield
        finally:
            self._let_in(b"inf")

    def _let_in(self, requests: bytes) -> None:
        address = f"{self.environment['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
        asked = urllib.request.Request(address, requests, {"Content-Type": "text/plain"})
        urllib.request.urlopen(asked).close()

    def stop(self) -> None:
        """Goes away; what it holds stays in this process."""
        self._server.stop()

    def start(self) -> None:
        """Comes back, at the same address."""
        self._server = self._make(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()


@pytest.fixture(scope="module")
def running_server() -> Iterator[ObjectServer]:
    """One for all tests of a module."""
    pytest.importorskip("s3fs", reason="needs pip install 'massl[s3]'")
    pytest.importorskip("moto.server", reason="needs pip install 'moto[s3]' flask flask-cors")
    server = ObjectServer()
    yield server
    server.stop()


@pytest.fixture
def object_server(running_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """It, empty, and the environment to reach it by."""
    import fsspec

    for name, value in running_server.environment.items():
        monkeypatch.setenv(name, value)
    kinds = fsspec.get_filesystem_class("s3")
    kinds.clear_instance_cache()
    files = running_server.files
    for path in files.find(BUCKET):
        files.rm_file(path)
    yield running_server
    kinds.clear_instance_cache()
