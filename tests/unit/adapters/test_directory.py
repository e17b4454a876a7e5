"""Policy files of a directory: by visible names, whole, once, and without waiting for a pipe."""

from __future__ import annotations

import os
from pathlib import Path

from federation.adapters.directory import PolicyDirectory


def test_a_configmaps_volume_is_read_once_by_its_visible_names(tmp_path: Path) -> None:
    """Each file of a ConfigMap would be in force twice, and the second refused as a duplicate."""
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "chat.yaml").write_bytes(b"a")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "chat.yaml").symlink_to("..data/chat.yaml")
    assert PolicyDirectory(tmp_path).read().files == {"chat.yaml": b"a"}


def test_what_is_no_file_is_told_and_not_opened(tmp_path: Path) -> None:
    """A pipe that is called like a policy file would stop all reading for ever."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    reading = PolicyDirectory(tmp_path).read()
    assert reading.files == {}
    assert "a pipe" in reading.refused["pipe.yaml"]
    assert "a directory" in reading.refused["folder.yaml"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    """A link to the directory itself would be followed until memory ends."""
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "chat.yaml").write_bytes(b"a")
    assert PolicyDirectory(tmp_path).read().files == {"chat.yaml": b"a"}


def test_a_directory_that_is_gone_says_nothing_of_its_files(tmp_path: Path) -> None:
    """A mount that failed would count as an empty directory."""
    assert not PolicyDirectory(tmp_path / "gone").read().is_there


def test_a_file_below_a_folder_that_cannot_be_read_may_exist(tmp_path: Path) -> None:
    """Files of an unreadable folder would be taken for removed."""
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "chat.yaml").write_bytes(b"a")
    directory = PolicyDirectory(tmp_path)
    assert set(directory.read().files) == {"team/chat.yaml"}
    folder.chmod(0)
    try:
        reading = directory.read()
    finally:
        folder.chmod(0o700)
    assert os.geteuid() == 0 or reading.is_unknown("team/chat.yaml")
