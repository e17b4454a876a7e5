"""Two models that are to take each other's devices, while their users are nearest to the ones that they hold."""

from __future__ import annotations

import pytest

import placement as words
from federation.control import rollout
from federation.state.keys import ModelCluster, PlacementKey
from placement import engine
from tests.builders import L4
from tests.unit.control.test_rollout import step

CLUSTERS = ("fra", "iad", "nrt")
CHAT = {"fra": 10.0, "iad": 60.0, "nrt": 200.0}
"""Round trips of the users of `chat` in ms; those of `other` are near nrt, as far from the others."""


def a_problem() -> words.Problem:
    """One device in fra and in nrt, two in iad; eight requests per second for each model."""
    shape = words.Shape(product="NVIDIA-L4", devices=1, requests_per_second=10.0)

    def model(name: str) -> words.Model:
        return words.Model(
            name=name,
            shapes=(shape,),
            objective_ms=300.0,
            late_usd_per_1000=1.0,
            unserved_usd_per_1000=20.0,
            latency_usd_per_1000_per_ms=0.001,
            target_utilisation=0.8,
        )

    other = {"fra": CHAT["nrt"], "iad": CHAT["iad"], "nrt": CHAT["fra"]}
    paths = [words.Path(cell="chats", cluster=name, rtt_ms=CHAT[name]) for name in CLUSTERS]
    paths += [words.Path(cell="others", cluster=name, rtt_ms=other[name]) for name in CLUSTERS]
    return words.Problem(
        clusters=tuple(words.Cluster(name=name, provider="test", region=name) for name in CLUSTERS),
        pools=tuple(
            words.Pool(cluster=name, product="NVIDIA-L4", vram_gib=24, devices=count, usd_per_device_hour=1.0)
            for name, count in {"fra": 1, "iad": 2, "nrt": 1}.items()
        ),
        models=(model("chat"), model("other")),
        cells=(words.Cell(name="chats", country="DE"), words.Cell(name="others", country="JP")),
        demands=tuple(words.Demand(model=name, cell=f"{name}s", requests_per_second=8.0) for name in ("chat", "other")),
        paths=tuple(paths),
    )


def lived(problem: words.Problem, *, gives_way: bool) -> tuple[dict[PlacementKey, int], float]:
    """Where replicas are after twenty steps, each of which is carried out at once, and the most that went unserved."""
    here: dict[PlacementKey, int] = {PlacementKey("chat", "fra", L4): 1, PlacementKey("other", "nrt", L4): 1}
    here |= {PlacementKey("chat", "iad", L4): 1, PlacementKey("other", "iad", L4): 1}
    target: dict[PlacementKey, int] = {PlacementKey("chat", "nrt", L4): 1, PlacementKey("other", "fra", L4): 1}
    target |= {PlacementKey("chat", "iad", L4): 1, PlacementKey("other", "iad", L4): 1}
    unserved_rps = 0.0
    for _ in range(20):
        used = rollout.to_be_used(problem, _named(target), _named(here))
        away = rollout.in_the_way(problem, _named(target), _named(here), used) if gives_way else {}
        routed = engine.route(problem, {key: count - away.get(key, 0) for key, count in used.items()})
        unserved_rps = max(unserved_rps, sum(one.requests_per_second for one in routed.unserved))
        load: dict[ModelCluster, float] = {}
        for flow in routed.flows:
            key = ModelCluster(flow.model, flow.cluster)
            load[key] = load.get(key, 0.0) + flow.requests_per_second
        here = {key: n for key, n in step(target, here, here, load=load, problem=problem).items() if n}
    return here, unserved_rps


def _named(replicas: dict[PlacementKey, int]) -> dict[tuple[str, str], int]:
    return {(model, f"{cluster}/{pool.text}"): count for (model, cluster, pool), count in replicas.items()}


@pytest.mark.parametrize("gives_way", [False, True], ids=["left-alone", "gives-way"])
def test_two_models_that_swap_devices_end(gives_way: bool) -> None:
    """A rollout would stand still for ever: each replica that is to go is the nearest to its users, so it is never
    without requests, and the replica that waits for its device never starts."""
    here, unserved_rps = lived(a_problem(), gives_way=gives_way)
    swapped = {PlacementKey("chat", "nrt", L4), PlacementKey("other", "fra", L4)}
    has_swapped = swapped <= here.keys() and len(here) == 4
    assert has_swapped is gives_way, here
    assert unserved_rps < 1e-6


def test_what_is_relieved_soon_gives_no_way() -> None:
    """Users would be sent far for a minute, though the replica that serves them instead is warming up."""
    problem = a_problem()
    fra, iad, nrt = (f"{name}/NVIDIA-L4/on-demand" for name in CLUSTERS)
    target = {("chat", iad): 1, ("other", fra): 1}
    told = {("chat", fra): 1, ("chat", iad): 1, ("other", nrt): 1}
    assert rollout.in_the_way(problem, target, told, {("chat", fra): 1, ("other", nrt): 1}) == {}
    both = {("chat", fra): 1, ("chat", iad): 1, ("other", nrt): 1}
    assert rollout.in_the_way(problem, target, told, both) == {("chat", fra): 1}
    free = {("chat", fra): 1, ("chat", iad): 1}
    assert rollout.in_the_way(problem, {("chat", iad): 1}, free, free) == {}, "nobody waits for it"
