"""`massl` in processes of their own that begin with everything imported: each is forked from one that waits.

A new interpreter takes up to six seconds of a core to import what a command needs; a fork takes a fiftieth of one. A
test that is about the start itself (what is imported, what an environment changes in a library as it is loaded) starts
an interpreter. In `tests/offline.py` each command imports MaSSL's own modules anew, so a missing import is found there.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parent.parent
OURS = ("massl", "indexer", "app", "cli")
STREAMS = 3  # standard input, output, error; then the pipe on which it is told how a process fares
INTERPRETER = "TESTS_INTERPRETER"  # the variable that says what a command finds as its own
# What a command imports, but for Gradio, which reads the environment as it is loaded.
EVERY = (
    "cli.commands", "indexer.collection", "indexer.duplicates.detection", "onnx", "onnxruntime", "rich.progress",
    "sklearn.linear_model", "sklearn.model_selection", "rich.table", "rich.markdown",
)  # fmt: skip
TORCH = ("massl.training.loop", "massl.encoder.export", "massl.encoder.weights", "massl.evaluation.tasks")
PAGE = ("pandas", "fastapi", "uvicorn", "jinja2", "multipart")
NEEDED = {"train": TORCH, "export": TORCH, "eval": TORCH, "serve": PAGE, "demo": PAGE}
# Read as libraries are loaded or the interpreter starts: where they are others, a command takes a new interpreter.
EARLY = ("PYTHON", "OMP_", "GOMP_", "LD_")
ANEW = [sys.executable, "-c", "from cli import main; main()"]


class Forked:
    """A running `massl`, as `subprocess.Popen` shows one."""

    def __init__(self, told: IO[bytes]) -> None:
        self._told = told
        self.returncode: int | None = None
        self.pid = int(told.readline())

    def poll(self) -> int | None:
        """Its exit code, minus a signal's number if that ended it; None while it runs."""
        return self._answer(0)

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended."""
        if self._answer(timeout) is None:
            raise subprocess.TimeoutExpired("massl", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As it is; nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def _answer(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            line = self._told.readline()
            self._told.close()
            assert line, "what forks has ended itself"
            self.returncode = int(line)
        return self.returncode


class Forks:
    """The process that waits, with all that is needed imported, and is forked for each command."""

    def __init__(
        self, before: Sequence[str] = (), environment: Mapping[str, str] | None = None, anew: bool = False,
        shared: Path | None = None,
    ) -> None:  # fmt: skip
        """Starts it.

        Args:
            before: What stands before its command, as what makes a namespace.
            environment: All of its variables, which libraries may read as they are loaded; the test's own if left out.
            anew: Each fork imports MaSSL's own modules itself: only those of other packages are there.
            shared: Where it listens, for all processes that name the same place: the first starts it, and it ends
                with the last. If left out it is for this process alone.
        """
        self._before = before
        self._environment = _early(os.environ if environment is None else environment)
        self._shared = shared
        command = [*before, sys.executable, "-m", "tests.forked"]

        def start(there: socket.socket) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [*command, str(there.fileno()), *(["anew"] if anew else [])],
                cwd=ROOT, env=environment, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip

        if shared is None:
            self._socket, there = socket.socketpair()
            with there:
                self._process = start(there)
            return
        self._socket = socket.socket(socket.AF_UNIX)
        if self._connected(shared):
            return
        from filelock import FileLock  # only now, as a stand-in has no packages

        with FileLock(f"{shared}.lock"):
            if not self._connected(shared):
                shared.unlink(missing_ok=True)
                with socket.socket(socket.AF_UNIX) as there:
                    there.bind(str(shared))
                    there.listen()
                    self._process = start(there)
                self._socket.connect(str(shared))

    def _connected(self, shared: Path) -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self._socket.connect(str(shared))
            return True
        return False

    def start(
        self, arguments: Iterable[object], streams: Sequence[int], cwd: Path | None = None,
        environment: dict[str, str] | None = None, first: Sequence[str] = (),
    ) -> Forked | subprocess.Popen[bytes]:  # fmt: skip
        """Starts `massl` with these arguments: in a fork where the system has what that takes.

        Args:
            arguments: What stands after `massl`.
            streams: Descriptors of its standard output and error.
            cwd: Its working folder; the test's own if left out.
            environment: All of its variables; the test's own if left out.
            first: A command that it runs before, as `mount`.
        """
        words, environment = [str(argument) for argument in arguments], dict(environment or os.environ)
        if not hasattr(os, "pidfd_open") or _early(environment) != self._environment:
            then = ["sh", "-c", f'{shlex.join(first)} && exec "$@"', "sh"] if first else []
            return subprocess.Popen(
                [*self._before, *then, *ANEW, *words], cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
                stdout=streams[0], stderr=streams[1],
            )  # fmt: skip
        asked = {
            "arguments": words, "cwd": str(cwd or Path.cwd()), "environment": environment, "first": list(first),
        }  # fmt: skip
        reads, writes = os.pipe()
        with open(os.devnull, "rb") as nothing:
            descriptors = array.array("i", [nothing.fileno(), *streams, writes])
            message = json.dumps(asked).encode()
            header = len(message).to_bytes(4, "big")
            self._socket.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())])
            self._socket.sendall(message)
        os.close(writes)
        return Forked(os.fdopen(reads, "rb", buffering=0))

    def run(
        self, arguments: Iterable[object], timeout: float = 300, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs it to its end, and returns what it printed, as `subprocess.run` does; `options` are those of `start`."""
        arguments = list(arguments)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
            running = self.start(arguments, [output.fileno(), error.fileno()], **options)
            try:
                code = running.wait(timeout)
            except BaseException:
                running.kill()
                raise
            for file in (output, error):
                file.seek(0)
            return subprocess.CompletedProcess(arguments, code, output.read(), error.read())

    def close(self) -> None:
        """Ends what waits, unless others share it."""
        self._socket.close()
        if self._shared is None:
            self._process.wait(60)


def wait_and_fork(there: socket.socket) -> list[str]:
    """Waits for commands until nobody can ask for one. Returns in each fork, with the command's arguments.

    Args:
        there: Connected to the one who asks; or it listens, and whoever connects may ask.
    """
    before = dict(os.environ)
    running: dict[int, tuple[int, int]] = {}  # by the descriptor of a process: its id, and where its end is told
    listens = bool(there.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    asking = {} if listens else {there.fileno(): there}
    waiting = select.poll()
    waiting.register(there, select.POLLIN)

    def let_in() -> None:
        connected = there.accept()[0]
        asking[connected.fileno()] = connected
        waiting.register(connected, select.POLLIN)

    _import(EVERY)
    while True:
        for ready, _ in waiting.poll():
            if listens and ready == there.fileno():
                let_in()
                continue
            if ready not in asking:
                waiting.unregister(ready)
                pid, told = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                _tell(told, code)
                os.close(told)
                os.close(ready)
                continue
            asked, descriptors = _receive(asking[ready])
            if asked is None:
                waiting.unregister(ready)
                asking.pop(ready).close()
                if listens and not asking:
                    Path(there.getsockname()).unlink(missing_ok=True)  # the next one starts another
                    if select.select([there], [], [], 0)[0]:  # but for who was connected before
                        let_in()
                if not asking:
                    os._exit(0)
                continue
            command = next(iter(asked["arguments"]), "")
            _import(NEEDED.get(command, ()))
            if command in ("train", "export"):
                _prepare_the_exporter()
            if not (pid := os.fork()):
                for other, (_, told) in running.items():
                    os.close(other)
                    os.close(told)
                for each in (there, *asking.values()):
                    each.close()
                _become(asked, descriptors, {name: os.environ[name] for name in os.environ.keys() - before.keys()})
                return list(asked["arguments"])
            *streams, told = descriptors
            for stream in streams:
                os.close(stream)
            _tell(told, pid)
            handle = os.pidfd_open(pid)
            running[handle] = (pid, told)
            waiting.register(handle, select.POLLIN)


def stand_in(place: Path) -> NoReturn:
    """Runs what follows `-m cli`, as this process was told, in a fork of what waits at `place`, and ends as that."""
    forks = Forks(shared=place)
    running = forks.start(sys.argv[sys.argv.index("cli") + 1 :], [sys.stdout.fileno(), sys.stderr.fileno()])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(running.pid, number))
    code = running.wait(3600)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def write_stand_in(file: Path, place: Path) -> Path:
    """Writes a program that takes the place of the interpreter in `python -m cli …`, as `stand_in` says; returns it."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; "
    code += f"from tests.forked import stand_in; stand_in(Path({str(place)!r}))"
    file.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-S", "-c", code])} "$@"\n')
    file.chmod(0o755)
    return file


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(EARLY)}


def _receive(there: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    header, descriptors, *_ = socket.recv_fds(there, 4, STREAMS + 1)
    if not header:
        return None, []
    left, parts = int.from_bytes(header, "big"), []
    while left:
        parts.append(there.recv(left))
        left -= len(parts[-1])
    return json.loads(b"".join(parts)), descriptors


def _tell(told: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
        os.write(told, b"%d\n" % number)


def _import(names: Iterable[str]) -> None:
    new = [name for name in names if name not in sys.modules]
    for name in new:
        importlib.import_module(name)
    if new:
        gc.collect()
        gc.freeze()  # left alone, it stays shared by all forks


@functools.cache
def _prepare_the_exporter() -> None:
    """Has torch import and build what it puts each network out by, which takes it seconds."""
    torch = importlib.import_module("torch")
    importlib.import_module("tests.massl.exporting").keep_the_table_of_operators(setattr)
    importlib.import_module("tqdm").tqdm.monitor_interval = 0  # no thread, as a fork has none but its own
    shapes = ({0: torch.export.Dim("N", min=1)},)
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            torch.nn.Linear(1, 1).eval(), (torch.zeros(2, 1),), dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    gc.collect()
    gc.freeze()


def _become(asked: dict[str, Any], descriptors: list[int], added: dict[str, str]) -> None:
    """Makes this fork what a new interpreter would be, with what the imports `added` to the environment."""
    for number, descriptor in enumerate(descriptors[:STREAMS]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or os.isatty(stream.fileno()))
    os.environ.clear()
    os.environ.update(asked["environment"] | added)
    sys.executable = os.environ.pop(INTERPRETER, sys.executable)
    os.chdir(asked["cwd"])
    tempfile.tempdir = None  # which a module may have asked for
    # As from a shell: what runs the tests may ignore them, as nohup does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if asked["first"]:
        subprocess.run(asked["first"], check=True)


def _end_at_once() -> None:
    """Ends a fork that exits once all is done that a module has asked for then.

    To take all modules apart would copy what is shared, for half a second.
    """
    if _code is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_code)


_code: int | None = None  # with which a fork exits; None while it runs, or where it ends in another way

if __name__ == "__main__":
    atexit.register(_end_at_once)  # the first, so that it comes last
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and this with them
    with socket.socket(fileno=int(sys.argv[1])) as there:
        arguments = wait_and_fork(there)
    if sys.argv[2:] == ["anew"]:
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
    sys.argv = ["massl", *arguments]
    try:
        importlib.import_module("cli").main(arguments)
    except SystemExit as end:
        _code = end.code if isinstance(end.code, int) else None
        raise
