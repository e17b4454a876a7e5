"""Make before break: what may start, and above all what may not stop yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

import placement as engine
from federation.control import rollout
from federation.state.keys import ModelCluster, PlacementKey
from tests.builders import L4

FRA: PlacementKey = PlacementKey("chat", "fra", L4)
IAD: PlacementKey = PlacementKey("chat", "iad", L4)
NRT: PlacementKey = PlacementKey("chat", "nrt", L4)
OTHER: PlacementKey = PlacementKey("other", "iad", L4)


def a_problem(
    *,
    devices: int = 4,
    min_replicas: int = 0,
    min_regions: int = 0,
    max_replicas: int | None = None,
    usd_per_hour: float | None = None,
    max_part: float | None = None,
) -> engine.Problem:
    """Args: usd_per_hour: budget of both models; each replica costs a dollar."""
    both = ("chat", "other")
    shape = engine.Shape(product="NVIDIA-L4", devices=1, requests_per_second=10.0)
    rules: dict[str, Any] = {"late_usd_per_1000": 1.0, "unserved_usd_per_1000": 20.0, "objective_ms": 200.0}
    names = ("fra", "iad", "nrt")
    return engine.Problem(
        clusters=tuple(engine.Cluster(name=name, provider="test", region=name) for name in names),
        pools=tuple(
            engine.Pool(cluster=name, product="NVIDIA-L4", vram_gib=24, devices=devices, usd_per_device_hour=1.0)
            for name in names
        ),
        models=(
            engine.Model(
                name="chat",
                shapes=(shape,),
                min_replicas=min_replicas,
                min_regions=min_regions,
                max_replicas=max_replicas,
                max_part=engine.MaxPart(domain="region", fraction=max_part) if max_part else None,
                **rules,
            ),
            engine.Model(name="other", shapes=(shape,), **rules),
        ),
        cells=(),
        demands=(),
        paths=(),
        budgets=() if usd_per_hour is None else (engine.Budget(name="b", models=both, usd_per_hour=usd_per_hour),),
    )


def step(
    target: Mapping[PlacementKey, int],
    desired: Mapping[PlacementKey, int],
    ready: Mapping[PlacementKey, int],
    *,
    load: Mapping[ModelCluster, float] | None = None,
    heard: tuple[str, ...] = ("fra", "iad", "nrt"),
    weighed: tuple[str, ...] = ("fra", "iad", "nrt"),
    postponed: tuple[PlacementKey, ...] = (),
    trusted: Mapping[PlacementKey, int] | None = None,
    problem: engine.Problem | None = None,
    stuck: tuple[PlacementKey, ...] = (),
) -> dict[PlacementKey, int]:
    situation = rollout.Situation(
        problem=problem or a_problem(),
        target=target,
        desired=desired,
        ready=ready,
        trusted=ready if trusted is None else trusted,
        load_rps=load or {},
        heard=frozenset(heard),
        weighed=frozenset(weighed),
        postponed=frozenset(postponed),
        stuck=frozenset(stuck),
    )
    return rollout.next_step(situation).desired


def test_the_old_replica_stays_until_the_new_one_was_seen_ready() -> None:
    """Users would be without the model for the length of a warm-up."""
    assert step({IAD: 1}, {FRA: 1}, {FRA: 1}) == {FRA: 1, IAD: 1}
    assert step({IAD: 1}, {FRA: 1, IAD: 1}, {FRA: 1}) == {FRA: 1, IAD: 1}
    assert step({IAD: 1}, {FRA: 1, IAD: 1}, {FRA: 1, IAD: 1}) == {FRA: 0, IAD: 1}


def test_a_replica_that_still_gets_requests_stays() -> None:
    """Requests in flight would be cut while their share is still on its way."""
    ready = {FRA: 1, IAD: 1}
    assert step({IAD: 1}, ready, ready, load={ModelCluster("chat", "fra"): 0.5})[FRA] == 1


def test_what_a_shift_comes_from_is_kept_until_it_has_arrived() -> None:
    """There would be nothing to go back to when the receiver fails its users."""
    ready = {FRA: 4, IAD: 4}
    assert (
        step({IAD: 4}, ready, ready, load={ModelCluster("chat", "fra"): 5.0, ModelCluster("chat", "iad"): 25.0})
        == ready
    )
    assert step({IAD: 4}, ready, ready, load={ModelCluster("chat", "iad"): 30.0}) == {FRA: 0, IAD: 4}
    assert step({FRA: 2, IAD: 4}, ready, ready, load={ModelCluster("chat", "fra"): 20.0}) == ready, (
        "two are planned for less"
    )
    assert step({FRA: 2, IAD: 4}, ready, ready, load={ModelCluster("chat", "fra"): 16.0}) == {FRA: 2, IAD: 4}


def test_what_serves_is_not_taken_for_what_never_became_ready_when_it_is_not_trusted() -> None:
    """Requests of a cluster that is given no more would be cut off, and its devices believed to be free."""
    ready = {FRA: 1, IAD: 1}
    assert step({IAD: 1}, ready, ready, trusted={IAD: 1}, load={ModelCluster("chat", "fra"): 5.0}) == ready
    assert step({OTHER: 4}, {}, {IAD: 1}, trusted={}) == {OTHER: 3}, "one of iad's four devices is still held"


def test_one_that_never_became_ready_goes_at_once() -> None:
    """A replica that cannot start would hold its device for ever."""
    assert step({IAD: 1}, {FRA: 1, IAD: 1}, {IAD: 1})[FRA] == 0


def test_silent_clusters_are_told_nothing_and_counted_for_nothing() -> None:
    """A cluster that cannot hear would be believed to have stopped, or to replace what stops."""
    assert step({IAD: 1}, {FRA: 1}, {FRA: 1}, heard=("iad",)) == {FRA: 1, IAD: 1}
    both = {FRA: 1, IAD: 1}
    after = step({NRT: 1}, both, both | {NRT: 9}, heard=("fra", "iad"))
    assert after[FRA] + after[IAD] == 1, "what is said to be ready in nrt replaces nothing"


def test_what_runs_in_a_cluster_that_came_back_is_stopped_by_no_older_plan() -> None:
    """Replicas of a returned region would be deleted, and a minute later be started again."""
    both = {FRA: 1, IAD: 1}
    assert step({IAD: 1}, both, both, weighed=("iad", "nrt")) == both
    assert step({IAD: 1}, both, both)[FRA] == 0


def test_what_a_plan_that_has_to_wait_would_have_is_not_stopped_meanwhile() -> None:
    """A region that is back within the dwell would lose its replicas, and have them started again seconds later."""
    both = {FRA: 1, IAD: 1}
    assert step({IAD: 1}, both, both, postponed=(FRA,)) == both


def test_what_is_to_go_loses_its_requests_first_and_not_before_the_rest_is_ready() -> None:
    """An old replica that is nearer would keep its requests, and so stay for ever; or users would lose both."""
    fra, iad = ("chat", "fra/NVIDIA-L4/on-demand"), ("chat", "iad/NVIDIA-L4/on-demand")
    assert rollout.to_be_used(a_problem(), {iad: 1}, {fra: 1, iad: 1}) == {iad: 1}
    assert rollout.to_be_used(a_problem(), {iad: 2}, {fra: 1, iad: 1}) == {fra: 1, iad: 1}


def test_the_floor_counts_ready_replicas() -> None:
    """The floor would be held by replicas that serve nobody."""
    problem = a_problem(min_replicas=2)
    target, desired = {IAD: 2}, {FRA: 2, IAD: 2}
    assert step(target, desired, {FRA: 2, IAD: 1}, problem=problem)[FRA] >= 1
    assert step(target, desired, {FRA: 2, IAD: 2}, problem=problem)[FRA] == 0


def test_new_replicas_wait_for_free_devices() -> None:
    """Two models would be sent to the same device."""
    desired = {OTHER: 4}
    assert step({OTHER: 4, IAD: 1}, desired, desired).get(IAD, 0) == 0


def test_devices_of_a_replica_on_its_way_out_are_not_free_yet() -> None:
    """A replica that still terminates would share its device."""
    assert step({IAD: 1}, {OTHER: 0}, {OTHER: 4}).get(IAD, 0) == 0


def test_when_all_is_full_one_may_go_early_that_is_not_needed_now() -> None:
    """A swap between two full clusters would wait for ever."""
    desired = {PlacementKey("chat", "iad", L4): 4, PlacementKey("other", "fra", L4): 4}
    target = {
        PlacementKey("chat", "iad", L4): 3,
        PlacementKey("chat", "fra", L4): 1,
        PlacementKey("other", "fra", L4): 3,
        PlacementKey("other", "iad", L4): 1,
    }
    after = step(target, desired, desired, load={ModelCluster("chat", "iad"): 25.0, ModelCluster("other", "fra"): 40.0})
    assert after[PlacementKey("chat", "iad", L4)] == 3, "25 of its 40 requests per second are in use: one may go"
    assert after[PlacementKey("other", "fra", L4)] == 4, "all of it is in use"


def test_a_withdrawn_model_goes() -> None:
    """A model whose document is gone would run for ever."""
    gone: PlacementKey = PlacementKey("gone", "fra", L4)
    assert step({}, {gone: 2}, {gone: 2}) == {gone: 0}


counts = st.dictionaries(st.sampled_from([FRA, IAD, NRT, OTHER]), st.integers(0, 4), max_size=4)


@settings(max_examples=300, deadline=None)
@given(target=counts, desired=counts, ready=counts, floor=st.integers(0, 4))
def test_no_step_lowers_ready_replicas_below_the_floor_or_overfills(
    target: dict[PlacementKey, int], desired: dict[PlacementKey, int], ready: dict[PlacementKey, int], floor: int
) -> None:
    """A rollout would take a model below what its policy promises, or give a device twice."""
    problem = a_problem(min_replicas=floor)
    ready = {key: min(count, desired.get(key, 0)) for key, count in ready.items()}
    after = step(target, desired, ready, problem=problem)

    def surely(counts: Mapping[PlacementKey, int]) -> int:
        return sum(min(ready.get(key, 0), count) for key, count in counts.items() if key[0] == "chat")

    wanted = min(floor, sum(count for key, count in target.items() if key[0] == "chat"))
    assert surely(after) >= min(surely(desired), wanted)
    for cluster in ("fra", "iad", "nrt"):
        before = sum(count for key, count in desired.items() if key[1] == cluster)
        assert sum(count for key, count in after.items() if key[1] == cluster) <= max(4, before)


@settings(max_examples=200, deadline=None)
@given(target=counts, start=counts)
def test_a_rollout_arrives(target: dict[PlacementKey, int], start: dict[PlacementKey, int]) -> None:
    """A rollout would stop half-way in a quiet world."""
    for cluster in ("fra", "iad", "nrt"):
        if sum(count for key, count in target.items() if key[1] == cluster) > 4:
            return
        if sum(count for key, count in start.items() if key[1] == cluster) > 4:
            return
    desired = dict(start)
    for _ in range(40):
        following = step(target, desired, {key: count for key, count in desired.items() if count})
        if following == desired:
            break
        desired = following
    assert {k: n for k, n in desired.items() if n} == {k: n for k, n in target.items() if n}


def test_what_moves_at_its_limit_overlaps_and_what_replaces_nothing_waits() -> None:
    """A model at its limit could never move, or a policy would spend on growth what another model still spends."""
    full = a_problem(max_replicas=2)
    assert step({IAD: 2}, {FRA: 2}, {FRA: 2}, load={ModelCluster("chat", "fra"): 20.0}, problem=full) == {
        FRA: 2,
        IAD: 2,
    }
    money = a_problem(usd_per_hour=4.0)
    load = {ModelCluster("chat", "fra"): 30.0, ModelCluster("other", "iad"): 10.0}
    grows = step({FRA: 2, OTHER: 2}, {FRA: 3, OTHER: 1}, {FRA: 3, OTHER: 1}, load=load, problem=money)
    assert grows == {FRA: 3, OTHER: 1}, "chat still has what other may have then"
    load[ModelCluster("chat", "fra")] = 10.0
    left = step({FRA: 2, OTHER: 2}, {FRA: 3, OTHER: 1}, {FRA: 3, OTHER: 1}, load=load, problem=money)
    assert left == {FRA: 2, OTHER: 1}
    assert step({FRA: 2, OTHER: 2}, left, left, load=load, problem=money) == {FRA: 2, OTHER: 2}


def test_two_models_that_move_within_one_budget_do_not_wait_for_each_other() -> None:
    """After a rise of prices a policy would stay beyond its budget for ever, each model waiting for the other."""
    there: PlacementKey = PlacementKey("other", "nrt", L4)
    target = {NRT: 1, there: 1}
    desired: Mapping[PlacementKey, int] = {FRA: 3, OTHER: 3}
    ready: dict[PlacementKey, int] = {FRA: 3, OTHER: 3}
    for _ in range(6):
        load = {
            ModelCluster(k.model, k.cluster): 1.0
            for k in desired
            if not all(ready.get(t, 0) for t in target if t.model == k.model)
        }
        after = step(target, desired, ready, load=load, problem=a_problem(usd_per_hour=2.0))
        assert sum(after.values()) - sum(desired.values()) <= 1, "one at a time"
        desired, ready = after, {k: n for k, n in after.items() if n}
    assert ready == target


def test_a_budget_below_a_floor_is_reached_all_the_same() -> None:
    """A policy that is beyond its budget would stay there for the sake of a floor that the budget is stronger than."""
    poor = a_problem(min_replicas=3, min_regions=2, usd_per_hour=1.0)
    ready = {FRA: 2, IAD: 1}
    assert step({FRA: 1}, ready, ready, problem=poor) == {FRA: 1, IAD: 0}
    rich = a_problem(min_replicas=3, min_regions=2, usd_per_hour=9.0)
    assert step({FRA: 1}, ready, ready, problem=rich) == ready, "in another shortage the floor binds what runs"


def test_what_is_used_to_the_full_within_its_limit_does_not_keep_the_surplus() -> None:
    """A policy would stay beyond its budget for as long as more is asked for than it may serve."""
    poor = a_problem(usd_per_hour=2.0)
    short = replace(
        poor,
        cells=(engine.Cell(name="berlin", country="DE"),),
        demands=(engine.Demand(model="chat", cell="berlin", requests_per_second=50.0),),
    )
    load, ready = {ModelCluster("chat", "fra"): 20.0}, {FRA: 3}
    assert step({FRA: 2}, ready, ready, load=load, problem=short) == {FRA: 2}
    enough = replace(short, demands=(structs.replace(short.demands[0], requests_per_second=16.0),))
    assert step({FRA: 2}, ready, ready, load=load, problem=enough) == ready, "what is too much is on its way elsewhere"


def test_a_new_version_in_a_full_pool_gets_a_device_when_others_carry_the_requests() -> None:
    """An update in a full pool would wait for ever, or stop a replica that users need."""
    full = {FRA: 4, IAD: 1}
    assert step(full, full, full, load={ModelCluster("chat", "fra"): 25.0}, stuck=(FRA,))[FRA] == 3
    assert step(full, full, full, load={ModelCluster("chat", "fra"): 35.0}, stuck=(FRA,))[FRA] == 4, "all four are busy"
    lowered = {**full, FRA: 3}
    assert step(full, lowered, lowered, load={ModelCluster("chat", "fra"): 5.0}, stuck=(FRA,))[FRA] == 3, (
        "one at a time"
    )
    assert step(full, lowered, lowered, load={ModelCluster("chat", "fra"): 5.0})[FRA] == 4, (
        "and back when it has started"
    )
    assert step({FRA: 1}, {FRA: 1}, {FRA: 1}, load={ModelCluster("chat", "fra"): 0.0}, stuck=(FRA,))[FRA] == 1, (
        "the only one stays"
    )


def test_every_stop_names_what_serves_instead() -> None:
    """Nobody could say why a replica that served was stopped, and its agent would not stop it."""
    situation = rollout.Situation(
        problem=a_problem(),
        target={IAD: 1},
        desired={FRA: 1, IAD: 1},
        ready={FRA: 1, IAD: 1},
        trusted={FRA: 1, IAD: 1},
        load_rps={},
        heard=frozenset(("fra", "iad")),
        weighed=frozenset(("fra", "iad")),
        postponed=frozenset(),
    )
    assert rollout.next_step(situation).stops == {FRA: "1 ready in iad serve instead"}


def test_what_an_agent_kept_as_it_is_ready_is_lowered_for_a_reason_or_stays() -> None:
    """An agent and its controller would hold to two counts for ever, and devices would serve nobody."""
    situation = rollout.Situation(
        problem=a_problem(),
        target={FRA: 1, IAD: 2},
        desired={FRA: 1, IAD: 2},
        ready={FRA: 3, IAD: 2},
        trusted={FRA: 3, IAD: 2},
        load_rps={},
        heard=frozenset(("fra", "iad")),
        weighed=frozenset(("fra", "iad")),
        postponed=frozenset(),
        kept={FRA: 3},
    )
    step = rollout.next_step(situation)
    assert step.desired == {FRA: 1, IAD: 2}
    assert step.stops == {FRA: "3 ready in fra, iad serve instead"}
    busy = replace(situation, load_rps={ModelCluster("chat", "fra"): 25.0})
    assert rollout.next_step(busy).desired == {FRA: 3, IAD: 2}, "users are on them"


def test_floors_bind_what_runs_whatever_the_target_holds_of_them() -> None:
    """A plan that is short of devices would take away what is there."""
    problem = a_problem(min_replicas=3)
    running = {FRA: 2, IAD: 1}
    assert step({IAD: 1}, running, running, problem=problem) == running


def test_what_is_ready_in_a_held_cluster_goes_only_when_others_carry_all_that_users_ask() -> None:
    """After three short silences a cluster's users would be left with what the others happen to hold."""
    demand = engine.Demand(model="chat", cell="Berlin", requests_per_second=35.0)
    cell = engine.Cell(name="Berlin", country="DE")
    problem = replace(
        a_problem(),
        cells=(cell,),
        demands=(demand,),
        clusters=tuple(
            replace(one, intake=engine.Intake.HELD) if one.name == "fra" else one for one in a_problem().clusters
        ),
    )
    running = {FRA: 2, IAD: 2}
    assert step({IAD: 2}, running, running, problem=problem) == running
    enough = {FRA: 2, IAD: 4}
    assert step({IAD: 4}, enough, enough, problem=problem)[FRA] == 0


def test_what_is_ready_beyond_what_was_told_does_not_keep_the_place_from_itself() -> None:
    """The plan would count on replicas that nobody sends requests to, and wait for ever for the devices they hold."""
    assert step({FRA: 4}, {FRA: 0}, {FRA: 4}, problem=a_problem(devices=4)) == {FRA: 4}
    assert step({FRA: 3}, {FRA: 1}, {FRA: 3}, problem=a_problem(devices=4)) == {FRA: 3}


def test_what_is_to_go_leaves_first_where_most_of_it_is() -> None:
    """While a fleet shrinks a region would come to hold more of a model than its owner lets a loss take."""
    problem = a_problem(max_part=0.5)
    target = {FRA: 2, IAD: 1, NRT: 1}
    now = {FRA: 2, IAD: 4, NRT: 2}
    seen = []
    for _ in range(10):
        after = step(target, now, now, problem=problem)
        if after == now:
            break
        now = {key: count for key, count in after.items() if count}
        seen.append(max(now.values()) / sum(now.values()))
    assert now == target, "and it ends"
    assert max(seen) <= 0.5


@given(
    have=st.tuples(*[st.integers(0, 4)] * 3),
    target=st.tuples(*[st.integers(0, 4)] * 3),
    part=st.sampled_from([0.34, 0.5, 0.7]),
)
@settings(max_examples=200, deadline=None)
def test_a_bounded_part_stops_no_rollout(have: tuple[int, ...], target: tuple[int, ...], part: float) -> None:
    """Each region would wait for another to give first, and what nobody needs would be paid for ever."""
    keys = (FRA, IAD, NRT)
    wanted = {key: n for key, n in zip(keys, target, strict=True) if n}
    now = {key: n for key, n in zip(keys, have, strict=True) if n}
    problem = a_problem(max_part=part, devices=8)
    for _ in range(40):
        now = {key: n for key, n in step(wanted, now, now, problem=problem).items() if n}
    assert now == wanted
