"""A real PowerDNS on loopback whose answers come from our remote backend."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed.build import find_dig, find_pdns, find_pdns_remote
from tests.testbed.processes import Process, free_ports, wait_for_port


def find_powerdns() -> Path:
    """The server's program. Raises: Missing, for the server, its remote backend, or dig."""
    find_pdns_remote()
    find_dig()
    return find_pdns()


class PowerDns:
    """One authoritative server. Args: backend_port: where the remote backend listens."""

    def __init__(self, backend_port: int) -> None:
        program = find_powerdns()
        (self.port,) = free_ports(1)
        self.directory = Path(tempfile.mkdtemp(prefix="isochrone-pdns-"))
        config = {
            "launch": "remote",
            "remote-connection-string": f"http:url=http://127.0.0.1:{backend_port}/dns,timeout=2000",
            "edns-subnet-processing": "yes",
            "local-address": "127.0.0.1",
            "local-port": str(self.port),
            "socket-dir": str(self.directory),
            "daemon": "no",
            "guardian": "no",
            "disable-axfr": "yes",
            "security-poll-suffix": "",
            # Answers are cheap and differ by subnet; nothing may outlive its time to live here.
            "cache-ttl": "0",
            "query-cache-ttl": "0",
            "negquery-cache-ttl": "0",
            "zone-cache-refresh-interval": "0",
        }
        lines = "\n".join(f"{key}={value}" for key, value in config.items())
        (self.directory / "pdns.conf").write_text(f"{lines}\n", encoding="utf-8")
        command = [str(program), f"--config-dir={self.directory}"]
        self._process = Process("pdns", command, log_file=self.directory / "pdns.log", environment=dict(os.environ))

    def __enter__(self) -> Self:
        try:
            self._process.start()
            wait_for_port(self._process, self.port, timeout_s=10.0)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it and remove its directory."""
        try:
            self._process.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def dig(self, name: str, subnet: str, kind: str = "A") -> tuple[list[str], int, str]:
        """(addresses, time to live in seconds, status) that `dig +subnet=` is told."""
        command = ["dig", "@127.0.0.1", "-p", str(self.port), name, kind, f"+subnet={subnet}", "+tries=1", "+time=3"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        status = re.search(r"status: (\w+)", said)
        rows = re.findall(rf"^{re.escape(name)}\.\s+(\d+)\s+IN\s+{kind}\s+(\S+)$", said, re.MULTILINE)
        return [address for _, address in rows], int(rows[0][0]) if rows else 0, status[1] if status else said
