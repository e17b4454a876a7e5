"""What an agent must remember over a restart: the highest that it accepted, and which start it was.

Written whole to a temporary file, flushed to the disk and renamed, before anything is carried out.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import structlog

from agents.fence import AcceptedOrder
from federation.wire import messages

log = structlog.get_logger("agent")


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file: the order of the last start, and what was accepted last (asserted while offline)."""

    boot_order: int = 0
    desired: messages.Desired | None = None
    instead: messages.Desired | None = None
    """What is carried out where `desired` stops replicas without a reason: it, with those workloads as before."""
    epoch: int = 0
    """With `generation`, what the cluster's own objects bore when the desired state was not known."""
    generation: int = 0

    def in_force(self) -> messages.Desired | None:
        """What the cluster is held to; None where newer objects were found than what is remembered."""
        if self.desired is None or self.accepted().checksum != self.desired.checksum:
            return None
        return self.instead or self.desired

    def accepted(self) -> AcceptedOrder:
        """The highest that is known to have been accepted; with its checksum only where its content is known."""
        if self.desired is None or (self.desired.epoch, self.desired.generation) < (self.epoch, self.generation):
            return AcceptedOrder(epoch=self.epoch, generation=self.generation)
        return AcceptedOrder(
            epoch=self.desired.epoch, generation=self.desired.generation, checksum=self.desired.checksum
        )


def read(path: Path | None) -> Memory:
    """What was remembered; an empty memory when there is none or it is damaged, which is said."""
    if path is None or not path.exists():
        return Memory()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Memory)
    except (msgspec.DecodeError, OSError) as error:
        log.warning("the state file cannot be read; the cluster's own objects say what was accepted", cause=str(error))
        return Memory()


def write(path: Path | None, memory: Memory) -> None:
    """Remember, durably. Raises: OSError, and then nothing may be carried out."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(memory))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
