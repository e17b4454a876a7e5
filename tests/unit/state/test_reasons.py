"""Every reason of an event and every type of a condition has a meaning that an operator can read."""

from __future__ import annotations

from typing import get_args

from federation.state.reasons import EVENTS, EventReason
from federation.wire.conditions import CONDITIONS, ConditionType


def test_every_event_reason_has_a_meaning() -> None:
    """An operator who looks a reason up in the reference would not find it."""
    assert set(EVENTS) == set(get_args(EventReason))
    assert all(text.endswith(".") for text in EVENTS.values())


def test_every_condition_type_has_a_meaning() -> None:
    """An operator who looks up a condition of a cluster in the reference would not find it."""
    assert set(CONDITIONS) == set(get_args(ConditionType))
    assert all(text.endswith(".") for text in CONDITIONS.values())
