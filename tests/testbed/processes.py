"""Child processes that never outlive whoever started them."""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Ports below Linux's ephemeral range: no outgoing connection can take one while its server is being restarted.
_FIRST_PORT, _LAST_PORT = 20000, 29999

# Linux ties "die with your parent" to the thread that forked, so one thread that lives as long as the interpreter forks
# for everyone; callers may come and go on threads of their own.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="testbed-spawner")

# Asks the kernel for SIGKILL when the parent dies, then becomes the program. A launcher and not `preexec_fn`, which is
# unsafe once the parent has threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the testbed is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_GROUP_GRACE_S = 4.0
"""Workers of a killed program see within a second or two that their parent is gone."""
_running: weakref.WeakSet[Process] = weakref.WeakSet()


class ProcessDied(RuntimeError):
    """A program ended that was to go on. The message carries the tail of its log."""


class LeftoverProcess(RuntimeError):
    """Something of a stopped program's process group is still there."""


class Process:
    """One program in its own process group, its output in a file.

    Args: name: for messages. command: an absolute path and its arguments. log_file: appended to.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, log_file: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._command = list(command)
        self._environment = dict(environment or {})
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises: RuntimeError when it is not started."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it is started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it; what it needs to become ready is the caller's to wait for."""
        if self.running:
            raise RuntimeError(f"{self.name} is already running (pid {self.pid})")
        self._popen = _spawner.submit(self._spawn).result()
        _running.add(self)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self._command
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises: ProcessDied when it has ended."""
        if not self.running:
            status = self._popen.returncode if self._popen else None
            raise ProcessDied(f"{self.name} ended with status {status}; its log ends:\n{self.log_tail()}")

    def log_tail(self, line_count: int = 20) -> str:
        """The last lines it wrote."""
        if not self.log_file.exists():
            return "(nothing)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-line_count:])

    def kill(self) -> None:
        """End it as a crash would: SIGKILL to the whole group."""
        self._end(signal.SIGKILL, grace_s=10.0)

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Ask it to end, and end it when it does not. Stopping what is not running is nothing.

        Raises: LeftoverProcess when a child of it stays behind.
        """
        self._end(signal.SIGTERM, grace_s=grace_s)

    def _end(self, first_signal: signal.Signals, *, grace_s: float) -> None:
        popen = self._popen
        if popen is None:
            return
        if popen.poll() is None:
            # The group is the process's own until it is waited for, so its id cannot have gone to another.
            os.killpg(popen.pid, first_signal)
            try:
                popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                os.killpg(popen.pid, signal.SIGKILL)
                popen.wait(grace_s)
        _running.discard(self)
        deadline_s = time.monotonic() + _GROUP_GRACE_S
        while time.monotonic() < deadline_s:
            try:
                os.killpg(popen.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        os.killpg(popen.pid, signal.SIGKILL)
        raise LeftoverProcess(f"{self.name} (pid {popen.pid}) left a process of its group behind; it is killed now")


def free_ports(count: int) -> list[int]:
    """Distinct loopback TCP ports that nothing listens on now."""
    held: list[socket.socket] = []
    candidates = iter(random.sample(range(_FIRST_PORT, _LAST_PORT + 1), _LAST_PORT - _FIRST_PORT + 1))
    try:
        while len(held) < count:
            candidate = socket.socket()
            # Without it a port whose last connections linger in TIME_WAIT would look taken.
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", next(candidates)))
            except OSError:
                candidate.close()
            else:
                held.append(candidate)
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def wait(ask: Callable[[], T], what: str, *, timeout_s: float = 30.0) -> T:
    """The first answer that is true. Raises: AssertionError with the last answer."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline_s, f"no {what} after {timeout_s:g} s; the last answer was {answer!r}"
        time.sleep(0.03)


def wait_for_port(process: Process, port: int, *, timeout_s: float) -> None:
    """Return once the process accepts connections. Raises: ProcessDied, TimeoutError."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        process.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise TimeoutError(
                    f"{process.name} does not listen after {timeout_s:g} s; its log ends:\n{process.log_tail()}"
                ) from None
            time.sleep(0.02)


@atexit.register
def _end_all() -> None:
    for process in list(_running):
        process.kill()
