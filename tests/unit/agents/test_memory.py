"""What an agent remembers over a restart, and what it does when that is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents import memory
from tests.unit.agents.test_fence import desired


def test_what_was_accepted_is_remembered_exactly(tmp_path: Path) -> None:
    """A restarted agent would obey an older order, or repeat one under another content."""
    path = tmp_path / "below" / "state.json"
    memory.write(path, memory.Memory(boot_order=7, desired=desired(3, 9)))
    assert memory.read(path) == memory.Memory(boot_order=7, desired=desired(3, 9))
    assert memory.read(path).accepted().fence == (3, 9)
    assert [one.name for one in path.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"boot_order": "x"}', b"\xff\x00", b"[]"])
def test_a_damaged_file_is_no_reason_to_stop(tmp_path: Path, content: bytes) -> None:
    """An agent that cannot start would leave its cluster without anyone to carry out a failover."""
    path = tmp_path / "state.json"
    path.write_bytes(content)
    assert memory.read(path) == memory.Memory()


def test_nothing_to_remember_is_no_error(tmp_path: Path) -> None:
    """An agent without a state file, as at its first start, would not start."""
    assert memory.read(None) == memory.read(tmp_path / "none") == memory.Memory()
    memory.write(None, memory.Memory())


def test_a_write_that_fails_leaves_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk would take the fence, and a restarted agent would obey an old order."""
    path = tmp_path / "state.json"
    memory.write(path, memory.Memory(boot_order=1, desired=desired(1, 1)))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        memory.write(path, memory.Memory(boot_order=1, desired=desired(1, 2)))
    assert memory.read(path).accepted().fence == (1, 1)
