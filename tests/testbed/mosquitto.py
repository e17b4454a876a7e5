"""A real Mosquitto broker on loopback."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed.build import find_mosquitto
from tests.testbed.processes import Process, free_ports, wait_for_port

_START_TIMEOUT_S = 10.0


class Mosquitto:
    """One broker that keeps its port over every restart; as a context manager, or with `start` and `stop`.

    Args: persistent: whether retained messages and sessions outlive it. extra_config: lines for its configuration file,
        such as `acl_file`; without an `allow_anonymous` of theirs anyone on this machine may connect.
    Raises: build.Missing where it is not installed.
    """

    def __init__(self, *, program: Path | None = None, persistent: bool = False, extra_config: str = "") -> None:
        program = program or find_mosquitto()
        (self.port,) = free_ports(1)
        self.directory = Path(tempfile.mkdtemp(prefix="isochrone-mosquitto-"))
        self._data = self.directory / "data"
        self._data.mkdir()
        config = self.directory / "mosquitto.conf"
        config.write_text(self._config(persistent=persistent, extra_config=extra_config))
        self._process = Process(
            "mosquitto", [str(program), "-c", str(config)], log_file=self.directory / "mosquitto.log"
        )

    @property
    def url(self) -> str:
        """Its address as `--broker` takes it."""
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Return once it accepts connections. Raises: ProcessDied, TimeoutError, with the log's tail."""
        self._process.start()
        wait_for_port(self._process, self.port, timeout_s=_START_TIMEOUT_S)

    def stop(self) -> None:
        """End it in order; it can be started again. Raises: LeftoverProcess."""
        self._process.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()

    def restart_empty(self) -> None:
        """End it as a crash would and start it with nothing retained: the broker is a cache, and this is its loss."""
        self.kill()
        shutil.rmtree(self._data)
        self._data.mkdir()
        self.start()

    def close(self) -> None:
        """End it for good and remove its directory."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self, line_count: int = 20) -> str:
        """The last lines of its log."""
        return self._process.log_tail(line_count)

    def _config(self, *, persistent: bool, extra_config: str) -> str:
        lines = [
            f"listener {self.port} 127.0.0.1",
            "log_dest stderr",
            f"persistence {'true' if persistent else 'false'}",
        ]
        if persistent:
            # Written at every change, since a crash leaves no time for it.
            lines += [f"persistence_location {self._data}/", "autosave_on_changes true", "autosave_interval 1"]
        if os.geteuid() == 0:
            # Else it would take another user's identity, who may not read this directory.
            lines.append("user root")
        if "allow_anonymous" not in extra_config:
            lines.append("allow_anonymous true")
        return "\n".join(lines) + f"\n{extra_config}\n"
