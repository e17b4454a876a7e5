"""The manifest: it never falls, survives a torn write, and needs no space."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from federation.adapters.manifest import SLOT_BYTES, Manifest, ManifestDamaged, ManifestFile, highest


@pytest.fixture
def file(tmp_path: Path) -> ManifestFile:
    """A manifest that does not exist yet."""
    return ManifestFile(tmp_path / "manifest.json")


def test_nothing_in_it_ever_falls(file: ManifestFile) -> None:
    """A restored backup would lower the epoch, and agents would refuse the controller."""
    file.reach(Manifest(epoch=3, generation=9, revision=2))
    assert file.reach(Manifest(epoch=2, generation=10)) == Manifest(epoch=3, generation=10, revision=2)
    assert file.read() == Manifest(epoch=3, generation=10, revision=2)


def test_each_start_gets_an_epoch_of_its_own(file: ManifestFile) -> None:
    """Two controllers would order with one epoch, and agents could not tell them apart."""
    assert [file.next_epoch(0), file.next_epoch(0), file.next_epoch(9), file.next_epoch(0)] == [1, 2, 9, 10]


@pytest.mark.parametrize("slot", [0, 1])
def test_a_torn_write_leaves_the_state_before_or_after_it(file: ManifestFile, slot: int) -> None:
    """A power cut during a write would make the store look new, and every replica unordered."""
    file.reach(Manifest(epoch=1))
    file.reach(Manifest(epoch=2))
    content = bytearray(file.path.read_bytes())
    content[slot * SLOT_BYTES : slot * SLOT_BYTES + 100] = b"x" * 100
    file.path.write_bytes(content)
    read = file.read()
    assert read is not None and read.epoch in (1, 2)
    assert file.reach(Manifest(epoch=3)).epoch == 3
    assert file.read() == Manifest(epoch=3)


def test_a_file_of_which_nothing_is_left_is_said(file: ManifestFile) -> None:
    """A damaged manifest would be taken for a new installation."""
    file.path.write_bytes(b"x" * 2 * SLOT_BYTES)
    with pytest.raises(ManifestDamaged):
        file.read()


def test_it_does_not_grow_and_others_cannot_read_it(file: ManifestFile) -> None:
    """On a full disk a plan's generation could not be written, and no agent could be told anything."""
    for epoch in range(1, 50):
        file.reach(Manifest(epoch=epoch))
    assert file.path.stat().st_size == 2 * SLOT_BYTES
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_the_highest_is_taken_field_by_field() -> None:
    """Of two manifests the newer one as a whole would lose what only the other knew."""
    assert highest(Manifest(epoch=2, change=1), Manifest(epoch=1, change=5)) == Manifest(epoch=2, change=5)
