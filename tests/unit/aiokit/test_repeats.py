"""Logs under a flood."""

from __future__ import annotations

import logging

import pytest
import structlog

from federation.aiokit.repeats import LINES, STACKS, WINDOW_S, LoggingRepeats, Repeats, StructlogRepeats


class Clock:
    now_s = 0.0


def test_what_repeats_is_told_so_often_and_then_how_often_it_was() -> None:
    """Eighty megabytes of one line in half a minute filled the disk that the database needs."""
    repeats = Repeats(lambda: Clock.now_s)
    say = StructlogRepeats(repeats)
    told = 0
    for number in range(20_000):
        try:
            say(None, "warning", {"event": f"message {number} is bad", "reason": "MessageRefused"})
            told += 1
        except structlog.DropEvent:
            pass
    assert told == LINES
    assert say(None, "warning", {"event": "another kind"}) == {"event": "another kind"}
    Clock.now_s += WINDOW_S
    said = say(None, "warning", {"event": "bad", "reason": "MessageRefused"})
    assert said["more_like_this"] == 20_000 - LINES


def test_libraries_are_held_to_it_too(caplog: pytest.LogCaptureFixture) -> None:
    """A library in trouble would fill the disk with one line."""
    logger = logging.getLogger("library")
    caplog.handler.addFilter(LoggingRepeats(Repeats(lambda: 0.0)))
    for number in range(1_000):
        logger.error("No data from %d", number)
    logger.error("another line of code")
    assert len(caplog.records) == STACKS + 1


def test_made_up_kinds_take_no_memory() -> None:
    """A client that invents kinds of errors would take the controller's memory."""
    repeats = Repeats(lambda: 0.0)
    for number in range(100_000):
        repeats.count(number)
    assert len(repeats._windows) <= 1_000
