"""Every command and every screen of the page, watched in a network namespace of its own: `python -m tests.offline DIR`.

It has the loopback device alone, to which all addresses of the world are local: a connection to any of them is refused
at once, and its packet is seen. Prints a JSON object with `asked` (names that were looked up), `reached` (addresses
outside of the machine that were sent to), `written` (files where none belong) and `failed` (commands, with what they
said).
"""

from __future__ import annotations

import fcntl
import importlib.util
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.screens import SCREENS
from tests.app.conftest import BROWSERS, DESKTOP, FLAGS, answered, show
from tests.forked import Forks

PICTURES = Path(__file__).parent.parent / "cli" / "pictures"
KINDS = ("fruit", "flag", "space")
PER_KIND = 4
PAGE = 25  # seconds that the page is open; what is reported home is sent some ten seconds late
MASSL = [sys.executable, "-c", "from cli import main; main()"]


class Watch(threading.Thread):
    """Sees all packets, as all go through the loopback device."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.asked: set[str] = set()
        self.reached: set[str] = set()
        everything = socket.htons(3)  # ETH_P_ALL
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, everything)
        self._packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._packets.bind(("lo", 3))

    def run(self) -> None:
        while True:
            packet = self._packets.recv(2048)
            if packet[0] >> 4 == 4:
                target, protocol, payload = packet[16:20], packet[9], packet[4 * (packet[0] & 15) :]
            elif packet[0] >> 4 == 6:
                target, protocol, payload = packet[24:40], packet[6], packet[40:]
            else:
                continue
            address = ipaddress.ip_address(target)
            if protocol not in (6, 17):  # TCP and UDP; not what the kernel says of itself
                continue
            port = struct.unpack("!H", payload[2:4])[0]
            if protocol == 17 and port == 53:
                self.asked.add(_question(payload[8:]))
            elif not address.is_loopback:
                self.reached.add(f"{address} port {port}")


def _question(message: bytes) -> str:
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels)


def _only_loopback(folder: Path) -> None:
    """Wakes the loopback device, gives it all addresses, and has names looked up by packets that can be seen."""
    with socket.socket() as any_socket:
        up = struct.pack("16sh14x", b"lo", 1 | 64)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS
    for family, everywhere in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        done = subprocess.run(["ip", family, "route", "add", "local", everywhere, "dev", "lo"], capture_output=True)
        if family == "-4" and done.returncode:  # a kernel may have no IPv6
            raise RuntimeError(done.stderr.decode())
    # Not by a resolver of the machine's, which would do it outside of this namespace.
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\n"), ("nsswitch.conf", "hosts: files dns\n")):
        if Path("/etc", name).exists():
            (folder / name).write_text(text)
            subprocess.run(["mount", "--bind", folder / name, Path("/etc", name)], check=True)


class Session:
    """A person's, with a HOME that nothing was ever written to.

    Some commands are interpreters of their own, one for each of the libraries that take seconds to import. The others
    are forks of a process that has imported them, in this namespace and with this environment, too.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary, self.here = (folder / name for name in ("home", "tmp", "here"))
        for made in (self.home, self.temporary, self.here):
            made.mkdir()
        # Nothing else of the environment: libraries keep still where they find the variables of a CI system.
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        self.environment = kept | {
            "HOME": str(self.home), "TMPDIR": str(self.temporary), "NO_COLOR": "1", "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        self.failed: list[str] = []
        self._forks = Forks(environment=self.environment, anew=True)

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        with_us = ["setpriv", "--pdeathsig", "KILL"]  # no server is left where this process fails or is killed
        return subprocess.Popen(
            [*with_us, *MASSL, *map(str, arguments)], cwd=self.here, env=self.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[bytes], *arguments: object) -> None:
        error = process.communicate(timeout=300)[1]
        self._judge(process.returncode, error, *arguments)

    def anew(self, *arguments: object) -> None:
        """Runs a command in a new interpreter."""
        self.end(self.start(*arguments), *arguments)

    def massl(self, *arguments: object) -> None:
        """Runs a command in a fork."""
        done = self._forks.run(arguments, cwd=self.here, environment=self.environment)
        self._judge(done.returncode, done.stderr, *arguments)

    def close(self) -> None:
        """Ends the process that is forked."""
        self._forks.close()

    def _judge(self, code: int, error: bytes, *arguments: object) -> None:
        said = error.decode("utf-8", "replace")
        if code or "onnxruntime" in said:  # which complains where it can't note down a device id
            self.failed.append(f"massl {' '.join(map(str, arguments))}: {code}, {said[-300:]}")

    def written(self) -> list[str]:
        """What is in HOME, and what files are left in the temporary folder."""
        left = [*self.home.rglob("*"), *(path for path in self.temporary.rglob("*") if path.is_file())]
        return sorted(str(path) for path in left)


def _searching(session: Session, photos: Path) -> None:
    demo = session.start("demo", "--headless")
    first = sorted(photos.glob("*/*.jpg"))[0]
    session.massl("--help")
    session.anew("index", photos)
    if importlib.util.find_spec("openvino"):
        session.anew("index", photos, "--index-dir", session.here / "by-openvino", "--runtime", "openvino")
    session.massl("search", photos, first)
    if importlib.util.find_spec("pyarrow"):
        session.massl("embed", photos, "--out", session.here / "out.parquet")
        session.massl("index", photos, "--rebuild", "--embeddings", session.here / "out.parquet")
    session.massl("dupes", photos)
    session.massl("odd", photos)
    session.massl("select", photos, "-n", 5, "--by", "typical")
    for kind in KINDS[:2]:
        session.massl("label", "add", photos, kind, *(photos / kind).iterdir())
    session.massl("classify", photos)
    session.massl("label", "export", photos, "--format", "onnx", "--out", session.here / "classifier.onnx")
    session.massl("info", photos)
    session.massl("doctor")
    session.end(demo, "demo", "--headless")


def _learning(session: Session, photos: Path) -> None:
    run, out = session.here / "run", session.here / "out.onnx"
    small = [f"--set={pair}" for pair in ("steps=2", "log_every=1", "batch=4", "workers=1", "memory=64")]
    smaller = [f"--set={pair}" for pair in ("backbone=test_vit", "image_size=32", "local_size=16", "head_width=32")]
    # The built-in network on few pixels.
    few = [f"--set={pair}" for pair in ("image_size=28", "local_size=14", "export_size=28", "workers=0")]
    session.massl("eval", "knn", photos, "--encoder", "builtin")
    session.anew("train", photos, "--out", run, *small, *smaller)
    session.massl("train", photos, "--resume", run)
    session.massl(
        "train", photos, "--out", session.here / "again", "--init", "builtin", "--track", "mlflow", *small, *few
    )
    session.massl("export", run, "--precision", "int8", "--out", out)


@contextmanager
def _all_screens(session: Session, photos: Path) -> Iterator[None]:
    """Shows every screen of the page, and leaves it open in a browser meanwhile, for `PAGE` seconds at least."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    process = session.start("serve", photos, "--port", "0")
    assert process.stderr
    address, said = "", b""
    while not address and (line := process.stderr.readline()):
        said += line
        if found := re.search(rb"http://\S+", line):
            address = found[0].decode()
    if not address:
        session.failed.append(f"massl serve: {said.decode()}")
        yield
        return
    quiet = [*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # the browser's own questions
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        tab: Any = browser.new_context(**DESKTOP).new_page()
        tab.goto(address)
        answered(tab, "Search")
        for screen in SCREENS:
            show(tab, screen.title)
        shown = time.monotonic()
        yield
        tab.wait_for_timeout(max(1, 1000 * (PAGE + shown - time.monotonic())))
        browser.close()
    process.send_signal(signal.SIGTERM)
    session.end(process, "serve")


def main(folder: Path) -> None:
    """Prints what was seen."""
    _only_loopback(folder)
    watch = Watch()
    watch.start()
    photos = folder / "photos"
    for kind in KINDS:
        (photos / kind).mkdir(parents=True)
        for picture in sorted((PICTURES / kind).glob("*.jpg"))[:PER_KIND]:
            shutil.copy(picture, photos / kind)
    session = Session(folder)
    _searching(session, photos)
    with _all_screens(session, photos):
        _learning(session, photos)
    session.close()
    written = session.written()
    print(json.dumps({**{name: sorted(getattr(watch, name)) for name in ("asked", "reached")},
                      "written": written, "failed": session.failed}))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
