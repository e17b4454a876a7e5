"""A replica that no node has room for any more: a neighbour took the place before the scheduler could."""

from __future__ import annotations

from dataclasses import replace

import pytest

import placement as engine
from federation.control import decide
from tests.unit.control.test_decide import a_question, pool


@pytest.mark.parametrize(
    ("room", "accepted"), [(None, False), (3, False), (2, True)], ids=["cannot-tell", "enough", "crowded"]
)
def test_replicas_that_no_node_has_room_for_go_elsewhere_at_once(room: int | None, accepted: bool) -> None:
    """They would stay pending for ever, because moving them gains no money."""
    question = a_question(
        {("chat", "fra"): 3}, {("chat", "fra"): 2, ("chat", "par"): 1}, pools=(pool("fra"), pool("par"))
    )
    if room is not None:
        rooms = (engine.Room(model="chat", pool="fra/L4/on-demand", replicas=room),)
        question = replace(question, problem=replace(question.problem, room=rooms))
    decision = decide.decide(question)
    (verdict,) = decision.verdicts
    assert verdict.accepted is accepted, verdict
    if accepted:
        assert (verdict.code, verdict.reason) == ("HardRule", "fra/L4/on-demand has room for 2 of its 3 replicas")
