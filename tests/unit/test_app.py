"""The composition root."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from pathlib import Path

import pytest

from federation.app import Controller
from federation.settings import Listen, Settings


@pytest.mark.slow
async def test_a_start_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    """A supervisor that starts it again would find its database in use, and worker processes would pile up."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(data_dir=tmp_path, listen=Listen(port=taken.getsockname()[1]))
        with pytest.raises(OSError, match="in use"):
            await Controller.start(settings)
    left = {task.get_name() for task in asyncio.all_tasks()} - {asyncio.current_task().get_name()}  # type: ignore[union-attr]
    assert left == set()
    assert multiprocessing.active_children() == []
