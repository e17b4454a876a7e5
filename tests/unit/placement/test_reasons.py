"""What the sentences of a large plan cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from placement import engine, floors
from placement.explain.model import reasons
from tests.bench.worlds import a_large_world


def test_a_models_losses_are_worked_out_once_for_all_its_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first plan of ten thousand clusters would wait minutes for its reasons after it is solved."""
    problem = a_large_world(3, clusters=12, cells=20, models=2)
    problem = replace(
        problem,
        pools=tuple(replace(one, losses_per_hour=2.0, replacement_chance=0.3) for one in problem.pools),
        models=tuple(replace(one, warmup_s=300.0) for one in problem.models),
        reaction_s=60.0,
    )
    solution = engine.solve(problem)
    asked, events = [], floors.events

    def counted(*args: Any) -> list[floors.Event]:
        asked.append(args)
        return events(*args)

    monkeypatch.setattr(floors, "events", counted)
    told = reasons(problem, solution)
    assert sum("for its risk" in text for text in told.values()) > len(problem.models)
    assert len(asked) <= len(problem.models)
