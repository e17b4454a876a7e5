"""The engine's two doors in this process. The engine is deterministic, so the same question is answered once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import placement as words
from federation.adapters.solver import route_and_check, solve_and_check
from federation.control.placement_cycle import Proposal

T = TypeVar("T")
ANSWERS_KEPT = 400


class Engine:
    """What `adapters/solver.py` has in processes of their own."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, object] = OrderedDict()
        self._asked: tuple[words.Problem, Hashable] | None = None

    async def solve(self, problem: words.Problem, present: tuple[words.Placed, ...]) -> Proposal:
        return self._once(("solve", self._key(problem), present), lambda: solve_and_check(problem, present))

    async def route(self, problem: words.Problem, ready: words.Ready) -> words.Routing:
        key = ("route", self._key(problem), tuple(sorted(ready.items())))
        return self._once(key, lambda: route_and_check(problem, ready))

    def _key(self, problem: words.Problem) -> Hashable:
        """What a problem says; the same object says the same again."""
        if self._asked is None or self._asked[0] is not problem:
            self._asked = problem, _Hashed(asked(problem))
        return self._asked[1]

    def _once(self, key: Hashable, work: Callable[[], T]) -> T:
        found = self._answers.get(key)
        if found is None:
            found = self._answers[key] = work()
            if len(self._answers) > ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return found  # type: ignore[return-value]


class _Hashed:
    """A long key whose hash is computed once."""

    __slots__ = ("_hash", "_key")

    def __init__(self, key: Hashable) -> None:
        self._key, self._hash = key, hash(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Hashed) and self._hash == other._hash and self._key == other._key)


def asked(problem: words.Problem) -> Hashable:
    """All that a problem says, to be compared."""
    paths = problem.paths
    way = (paths.cells, paths.clusters, paths.rtt_ms.tobytes()) if isinstance(paths, words.RttMatrix) else paths
    return (
        problem.clusters,
        problem.pools,
        problem.models,
        problem.cells,
        problem.demands,
        problem.current,
        problem.move_horizon_h,
        problem.room,
        problem.budgets,
        way,
    )
