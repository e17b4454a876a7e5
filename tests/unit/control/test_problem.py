"""From belief to the engine's question: what is counted on, what may be used, and what cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

import placement as engine
from federation.control import problem
from federation.control.problem import Formulated, Formulation, formulate
from federation.policy import documents
from federation.prices.book import Believed, Feed
from federation.prices.rows import Offer
from federation.state import levels
from federation.state.keys import ClusterPool, PlacementKey
from federation.state.measured import Window
from federation.state.phases import Phase
from federation.state.reduce import CordonsSet, Heard, PricesRead, RoundTripsMeasured, SpotSeen, TimePassed
from federation.state.spot import Counts, SpotRisk
from federation.state.world import Brake, Cordon, Setback, Setbacks, World
from federation.wire import messages
from tests.builders import L4, L4_SPOT, a_model, a_policy, a_report, a_world, heard, replicas, some_demand, told

CHAT = a_model("chat")
FOR_CHAT = a_policy("chat")
NOW_S = 100.0


def world(*names: str, **report: Any) -> World:
    """Clusters that have just been heard; `report` changes what each of them said."""
    found = a_world(*names, models=(CHAT,), policies=(FOR_CHAT,))
    return heard(found, *(a_report(name, **report) for name in names), now_s=NOW_S)


def ask(belief: World, target: Mapping[PlacementKey, int] | None = None, *, now_s: float = NOW_S) -> Formulated:
    placed = target or {}
    return formulate(belief, target=placed, desired=placed, now_s=now_s)


def devices(asked: Formulated) -> dict[str, int]:
    return {pool.name: pool.devices for pool in asked.problem.pools}


def test_devices_that_others_use_are_not_offered() -> None:
    """A replica would wait for ever on a device that a neighbour's pod holds."""
    pools = (messages.PoolReport(key=L4, vram_gib=24, allocatable=8, free=3),)
    mine = (replicas("chat", 2, 2),)
    assert devices(ask(world("fra", pools=pools)))["fra/NVIDIA-L4/on-demand"] == 3
    assert devices(ask(world("fra", pools=pools, replicas=mine)))["fra/NVIDIA-L4/on-demand"] == 5


BIG = a_model("big")
BIG = msgspec.structs.replace(
    BIG,
    spec=msgspec.structs.replace(
        BIG.spec, accelerators=(documents.Accelerator(product="NVIDIA-L4", count=4, requests_per_second=40),)
    ),
)


def rooms(asked: Formulated) -> dict[str, int]:
    return {one.model: one.replicas for one in asked.problem.room}


@pytest.mark.parametrize(
    ("room", "running", "expected"),
    [
        (None, (), {}),
        ([(2, 2)], (), {"big": 0}),  # four free in sum, two on each node
        ([(1, 4)], (), {}),
        ([(2, 2)], (replicas("big", 1, 1),), {"big": 1}),
        ([], (replicas("chat", 4, 4),), {"big": 0}),
        ([(4, 1)], (replicas("chat", 2, 2),), {"big": 0}),
    ],
    ids=["cannot-tell", "fragmented", "whole", "runs-already", "full-of-ours", "full-of-singles"],
)
def test_a_fragmented_pool_is_not_given_what_no_node_can_run(
    room: list[tuple[int, int]] | None, running: tuple[messages.ReplicaReport, ...], expected: dict[str, int]
) -> None:
    """A replica of four devices would wait for ever in a cluster that has four free, one on each of four nodes."""
    free = sum(nodes * devices for nodes, devices in ([(1, 4)] if room is None else room))
    held = sum(one.ready * (4 if one.model == "big" else 1) for one in running)
    rows = tuple(
        messages.NodeRoom(nodes=nodes, devices=each, cpu_millis=64_000, memory_mib=512_000)
        for nodes, each in room or ()
    )
    pool = messages.PoolReport(
        key=L4, vram_gib=24, allocatable=free + held, free=free, room=None if room is None else rows
    )
    belief = a_world("fra", models=(BIG, CHAT), policies=(a_policy("big", "chat"),))
    asked = ask(heard(belief, a_report("fra", pools=(pool,), replicas=running), now_s=NOW_S))
    assert rooms(asked) == expected


def test_room_is_also_cpu_and_memory() -> None:
    """Free devices on a node whose memory is full run nothing."""
    row = messages.NodeRoom(nodes=1, devices=8, cpu_millis=64_000, memory_mib=33 * 1024)
    pools = (messages.PoolReport(key=L4, vram_gib=24, allocatable=8, free=8, room=(row,)),)
    assert rooms(ask(world("fra", pools=pools))) == {"chat": 2}, "each asks for 16 GiB"


def test_what_nobody_vouches_for_runs_no_model_that_names_a_minimum() -> None:
    """A model of 40 GB would be started on a card of unknown size, and crash there until someone looks."""
    needs = msgspec.structs.replace(
        CHAT,
        spec=msgspec.structs.replace(
            CHAT.spec,
            accelerators=(documents.Accelerator(product="NVIDIA-L4", min_vram_gib=20, requests_per_second=10),),
        ),
    )
    for verified, usable in ((False, False), (True, True)):
        pool = messages.PoolReport(key=L4, vram_gib=0, vram_known=False, verified=verified, allocatable=8, free=8)
        belief = heard(
            a_world("fra", models=(needs,), policies=(FOR_CHAT,)), a_report("fra", pools=(pool,)), now_s=NOW_S
        )
        problem = ask(belief).problem
        assert (problem.models[0].shape_for(problem.pools[0]) is not None) is usable


def test_what_could_be_added_is_not_counted_as_there() -> None:
    """Replicas would be placed on nodes that nobody has started."""
    grown = (messages.Growth(group="gpu", source="karpenter", pool=L4, devices=64, provisioning_s=90),)
    assert devices(ask(world("fra", growth=grown))) == devices(ask(world("fra")))


def test_a_pool_that_vanished_keeps_its_name_and_offers_nothing() -> None:
    """Replicas placed there would else drop out of the account, and nobody would replace them on purpose."""
    asked = ask(world("fra"), {PlacementKey("chat", "fra", L4_SPOT): 2})
    assert devices(asked)["fra/NVIDIA-L4/spot"] == 0
    assert asked.present == (engine.Placed(model="chat", pool="fra/NVIDIA-L4/spot", replicas=2),)


def test_a_silent_cluster_is_counted_on_until_the_policy_no_longer_tolerates_it() -> None:
    """A broken uplink of a minute would move every replica of a region."""
    target = {PlacementKey("chat", "fra", L4): 2}
    silent = told(
        world("fra", "iad"), Heard(message=a_report("iad", seq=2), now_s=NOW_S + 45), TimePassed(now_s=NOW_S + 50)
    )
    early, late = ask(silent, target, now_s=NOW_S + 60), ask(silent, target, now_s=NOW_S + 60 + 300)
    assert early.present == (engine.Placed(model="chat", pool="fra/NVIDIA-L4/on-demand", replicas=2),)
    assert late.present == ()
    held = {cluster.name: (cluster.intake, cluster.reachable) for cluster in early.problem.clusters}
    assert held["fra"] == (engine.Intake.HELD, False)
    assert held["iad"] == (engine.Intake.OPEN, True)


def test_under_the_brake_silence_proves_nothing() -> None:
    """A controller that is cut off would replace replicas that still serve."""
    target = {PlacementKey("chat", "fra", L4): 2}
    braked = replace(world("fra", "iad"), brake=Brake(since_s=NOW_S, phases={}, silent=("fra", "iad"), counted=2))
    assert ask(braked, target, now_s=NOW_S + 9999).present != ()


@pytest.mark.parametrize(
    ("drain", "intake"), [(False, engine.Intake.CORDONED), (True, engine.Intake.DRAINING)], ids=["cordon", "drain"]
)
def test_an_operators_word_is_heard(drain: bool, intake: engine.Intake) -> None:
    """A cordoned cluster would get new replicas during its maintenance."""
    cordoned = told(world("fra"), CordonsSet(cordons={"fra": Cordon(reason="kernel", drain=drain)}))
    assert ask(cordoned).problem.clusters[0].intake is intake


def test_a_price_comes_from_the_report_then_the_catalogue_and_is_never_made_up() -> None:
    """A pool taken for free would draw every replica of the company."""
    told_price = (messages.PoolReport(key=L4, vram_gib=24, allocatable=8, free=8, usd_per_device_hour=0.3),)
    unpriced = messages.PoolReport(key=messages.PoolKey(product="NVIDIA-NEW"), vram_gib=24, allocatable=8, free=8)
    assert ask(world("fra", pools=told_price)).problem.pools[0].usd_per_device_hour == 0.3
    assert ask(world("fra")).problem.pools[0].usd_per_device_hour == 1.0
    asked = ask(world("fra", pools=(unpriced,)))
    assert asked.problem.pools == ()
    assert "pool fra/NVIDIA-NEW/on-demand has no price" in asked.left_out[0]


def test_a_pool_that_lost_its_price_keeps_what_it_has_and_gets_no_more() -> None:
    """An agent that stops telling a price would draw every replica of the company, past any budget."""
    new = messages.PoolKey(product="NVIDIA-NEW")
    chat = msgspec.structs.replace(
        CHAT.spec, accelerators=(documents.Accelerator(product="NVIDIA-NEW", requests_per_second=9),)
    )
    belief = a_world("fra", models=(msgspec.structs.replace(CHAT, spec=chat),), policies=(FOR_CHAT,))
    unpriced = messages.PoolReport(key=new, vram_gib=24, allocatable=8, free=6)
    running = messages.ReplicaReport(model="chat", pool=new, desired=2, ready=2)
    belief = heard(belief, a_report("fra", pools=(unpriced,), replicas=(running,)), now_s=NOW_S)
    [pool] = ask(belief, {PlacementKey("chat", "fra", new): 2}).problem.pools
    assert (pool.devices, pool.usd_per_device_hour) == (2, 0.0)


def test_the_risk_of_spot_reaches_the_engine() -> None:
    """Plans would take spot as if it were never taken back."""
    known = {
        ("", ""): SpotRisk(losses_per_hour=0.3, replacement_chance=0.5),
        ("test", ""): SpotRisk(losses_per_hour=0.2),
    }

    def spot(belief: World) -> engine.Pool:
        of_market = {one.market: one for one in ask(belief).problem.pools}
        assert of_market["on-demand"].losses_per_hour == 0.0
        return of_market["spot"]

    pools = tuple(messages.PoolReport(key=key, vram_gib=24, allocatable=8, free=8) for key in (L4, L4_SPOT))
    belief = replace(world("fra", pools=pools), spot_risks=known)
    assert (spot(belief).losses_per_hour, spot(belief).replacement_chance) == (0.2, 1.0)
    [fra] = belief.documents.clusters
    on_demand, declared = fra.spec.accelerators
    declared = msgspec.structs.replace(declared, losses_per_hour=0.05)
    own = msgspec.structs.replace(fra, spec=msgspec.structs.replace(fra.spec, accelerators=(on_demand, declared)))
    belief = replace(belief, documents=msgspec.structs.replace(belief.documents, clusters=(own,)))
    assert spot(belief).losses_per_hour == 0.05, "the catalogue's word counts"
    assert ask(belief).problem.reaction_s > 0


def test_a_promised_availability_reaches_the_engine() -> None:
    """Policy would promise it and nobody would keep it."""
    policy = a_policy("chat", availability=documents.Availability(target=99.5))
    belief = heard(a_world("fra", models=(CHAT,), policies=(policy,)), a_report("fra"), now_s=NOW_S)
    assert ask(belief).problem.models[0].target_fraction == pytest.approx(0.995)
    assert ask(world("fra")).problem.models[0].target_fraction == 0.0, "a price unless it is asked for"


def test_continents_and_their_cap_reach_the_engine() -> None:
    """Policy would be accepted and do nothing."""
    policy = a_policy("chat", failover=documents.Failover(max_other_continents_percent=25.0))
    asking = (some_demand("chat", "Berlin", 5.0), some_demand("chat", "Nowhere", 5.0, country="XX"))
    belief = a_world("fra", "nrt", models=(CHAT,), policies=(policy,))
    belief = heard(belief, a_report("fra", demand=asking), a_report("nrt"), now_s=NOW_S)
    problem = ask(replace(belief, continents={"DE": "EU", "JP": "AS"})).problem
    assert problem.models[0].other_continents_max_fraction == 0.25
    assert {one.name: one.continent for one in problem.clusters} == {"fra": "EU", "nrt": "AS"}
    assert {one.name: one.continent for one in problem.cells} == {"Berlin": "EU", "Nowhere": ""}
    assert ask(world("fra")).problem.models[0].other_continents_max_fraction == 1.0, "no cap unless one is asked for"


def test_the_rules_of_every_country_that_an_undecided_cell_may_be_in_hold() -> None:
    """One member's word against another's would be enough to serve German users in the United States."""

    def rule(country: str, jurisdiction: str) -> documents.ResidencyRule:
        return documents.ResidencyRule(
            users_in=documents.UsersIn(countries=(country,)),
            clusters_in=documents.ClustersIn(jurisdictions=(jurisdiction,)),
        )

    def may_serve(*rules: documents.ResidencyRule, country: str = "US") -> set[str]:
        belief = a_world("fra", "iad", "nrt", models=(CHAT,), policies=(a_policy("chat", residency=rules),))
        berlin = (some_demand("chat", "Berlin", 5.0),)
        other = (some_demand("chat", "Berlin", 5.0, country=country),)
        belief = heard(belief, a_report("iad", demand=other), a_report("fra", demand=berlin), now_s=NOW_S)
        problem = ask(replace(belief, continents={"DE": "EU", "FR": "EU", "US": "NA"})).problem
        (model,), (cell,) = problem.models, problem.cells
        assert cell.continent == ("EU" if country == "FR" else "")
        return {one.name for one in problem.clusters if all(r.permits(cell, one) for r in model.residency)}

    assert may_serve() == {"fra", "iad", "nrt"}
    assert may_serve(rule("DE", "EU")) == may_serve(rule("DE", "EU"), country="FR") == {"fra"}
    assert may_serve(rule("US", "US")) == {"iad"}
    assert may_serve(rule("DE", "EU"), rule("US", "US")) == set()
    assert may_serve(rule("JP", "JP")) == {"fra", "iad", "nrt"}, "a rule for others says nothing"


def test_a_model_without_a_policy_is_left_out_and_said() -> None:
    """A model would start without anybody having said what it may cost, or stay away without a word."""
    belief = heard(a_world("fra", models=(CHAT,)), a_report("fra"), now_s=NOW_S)
    asked = ask(belief)
    assert asked.problem.models == ()
    assert asked.left_out == ("model chat has no placement policy and is not placed",)


def test_demand_of_unknown_models_is_no_demand_of_others() -> None:
    """Requests for a model that nobody declared would be planned for another."""
    counted = (some_demand("chat", "Berlin", 10), some_demand("ghost", "Berlin", 99))
    asked = ask(world("fra", demand=counted))
    assert [(one.model, one.requests_per_second) for one in asked.problem.demands] == [("chat", 10)]


def test_names_go_there_and_back() -> None:
    """A plan would count replicas of another cluster or pool, and agents would get wrong orders."""
    asked = ask(world("fra"), {PlacementKey("chat", "fra", L4): 2})
    assert asked.ours(asked.present) == {PlacementKey("chat", "fra", L4): 2}
    assert asked.theirs(
        {
            PlacementKey("chat", "fra", L4): 2,
            PlacementKey("ghost", "fra", L4): 1,
            PlacementKey("chat", "fra", L4_SPOT): 0,
        }
    ) == {("chat", "fra/NVIDIA-L4/on-demand"): 2}


@pytest.mark.parametrize(
    "pools", [(), (messages.PoolReport(key=L4, vram_gib=24, allocatable=0, free=0),)], ids=["gone", "zero"]
)
def test_devices_that_ready_replicas_hold_count_while_their_plugin_restarts(
    pools: tuple[messages.PoolReport, ...],
) -> None:
    """Each restart of a kubelet would move every replica of a node that serves on, and at a higher price."""
    running = (messages.ReplicaReport(model="chat", pool=L4, desired=4, ready=4, scheduled=4),)
    target = {PlacementKey("chat", "fra", L4): 4}
    full = messages.PoolReport(key=L4, vram_gib=24, allocatable=8, free=4)
    before = heard(world("fra", "iad"), a_report("fra", seq=7, pools=(full,), replicas=running), now_s=NOW_S)
    after = heard(before, a_report("fra", seq=8, pools=pools, replicas=running), now_s=NOW_S + 10)
    still = ask(after, target, now_s=NOW_S + 20)
    (pool,) = [one for one in still.problem.pools if one.name == "fra/NVIDIA-L4/on-demand"]
    assert (pool.devices, pool.vram_gib, pool.usd_per_device_hour) == (4, 24, 1.0), "what is held, and none beside it"
    (late,) = [
        one for one in ask(after, target, now_s=NOW_S + 700).problem.pools if one.name == "fra/NVIDIA-L4/on-demand"
    ]
    assert late.devices == 0, "a grace, not for ever"
    ended = msgspec.structs.replace(running[0], ready=0)
    gone = heard(after, a_report("fra", seq=9, pools=pools, replicas=(ended,)), now_s=NOW_S + 20)
    (pool,) = [
        one for one in ask(gone, target, now_s=NOW_S + 30).problem.pools if one.name == "fra/NVIDIA-L4/on-demand"
    ]
    assert pool.devices == 0, "nothing that is ready holds them"
    back = heard(after, a_report("fra", seq=9, pools=(full,), replicas=running), now_s=NOW_S + 20)
    assert back.clusters["fra"].lent == {}


def test_limits_of_policies_reach_the_engine() -> None:
    """A limit that somebody wrote down would be believed in, and nothing keep to it."""
    limits: dict[str, Any] = {
        "availability": documents.Availability(max_replicas=7),
        "budget": documents.Budget(max_usd_per_hour=12.5),
    }
    bare = a_world(
        "fra", models=(a_model("a"), a_model("b")), policies=(a_policy("a", "gone", **limits), a_policy("b"))
    )
    problem = ask(heard(bare, a_report("fra"), now_s=NOW_S)).problem
    assert {one.name: one.max_replicas for one in problem.models} == {"a": 7, "b": None}
    assert problem.budgets == (engine.Budget(name="for-a", models=("a",), usd_per_hour=12.5),)


PLACED = {PlacementKey("chat", "fra", L4): 2}
LATER_S = NOW_S + 1.0


def _silent(belief: World, since_s: float) -> World:
    gone = replace(belief.clusters["iad"], phase=Phase.UNREACHABLE, since_s=since_s)
    return replace(belief, clusters={**belief.clusters, "iad": gone})


def _again(belief: World, **report: Any) -> World:
    fields: dict[str, Any] = {**FIRST, **report}
    return heard(belief, a_report("fra", 3, **fields), now_s=LATER_S)


FIRST = {
    "demand": (some_demand("chat", "Berlin", 20.0),),
    "peers": (messages.PeerRtt(cluster="iad", rtt_ms_p50=90.0, rtt_ms_p95=90.0, samples=3),),
    "pools": tuple(messages.PoolReport(key=key, vram_gib=24, allocatable=8, free=5) for key in (L4, L4_SPOT)),
}
STUCK = Setback(
    key=PlacementKey("chat", "fra", L4),
    cause="image",
    reason="no such image",
    kept=1,
    until_s=NOW_S + 0.5,
    strikes=1,
    version="v",
)
CHEAPER = Feed(
    name="list",
    read_s=0.0,
    prices={Offer("test", "fra", "", "", "NVIDIA-L4", "on-demand"): Believed(0.7, 0.0)},
)
ROUGH = Counts(at_s=0.0, hours=50.0, losses=40.0)
SLOWER = (messages.PeerRtt(cluster="iad", rtt_ms_p50=120.0, rtt_ms_p95=120.0, samples=3),)


def _told_of() -> World:
    return heard(world("fra", "iad"), a_report("fra", 2, **FIRST), now_s=NOW_S)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(lambda w: _again(w, demand=(some_demand("chat", "Berlin", 21.0),)), id="demand"),
        pytest.param(lambda w: _again(w, peers=SLOWER), id="a round trip"),
        pytest.param(lambda w: _again(w, replicas=(replicas("chat", 2, 2),)), id="ready replicas"),
        pytest.param(
            lambda w: _again(w, pools=(messages.PoolReport(key=L4, vram_gib=24, allocatable=4, free=4),)), id="devices"
        ),
        pytest.param(lambda w: told(w, CordonsSet(cordons={"iad": Cordon(reason="", drain=True)})), id="a cordon"),
        pytest.param(lambda w: _silent(w, NOW_S), id="a silence"),
        pytest.param(
            lambda w: replace(w, brake=Brake(since_s=NOW_S, phases={}, silent=("iad",), counted=2)), id="the brake"
        ),
        pytest.param(lambda w: replace(w, setbacks=Setbacks(backoffs={STUCK.key: STUCK})), id="a setback"),
        pytest.param(lambda w: told(w, PricesRead(feed=CHEAPER)), id="a price feed"),
        pytest.param(lambda w: told(w, SpotSeen(counts={ClusterPool("fra", L4_SPOT): ROUGH})), id="losses of spot"),
        pytest.param(
            lambda w: told(w, RoundTripsMeasured(windows=(Window("Berlin", "iad", (150.0,) * 3, 3),), now_s=LATER_S)),
            id="what browsers measured",
        ),
    ],
)
def test_a_question_that_was_kept_is_asked_anew_when_its_world_changes(after: Any) -> None:
    """The plan would be made of what was true before."""
    kept, before = Formulation(), _told_of()
    first = kept(before, target=PLACED, desired=PLACED, now_s=NOW_S, aside={}, given_up={})
    assert kept(before, target=PLACED, desired=PLACED, now_s=LATER_S, aside={}, given_up={}) is first
    following = after(before)
    asked = kept(following, target=PLACED, desired=PLACED, now_s=LATER_S, aside={}, given_up={})
    assert text(asked) == text(formulate(following, target=PLACED, desired=PLACED, now_s=LATER_S))
    assert text(asked) != text(first)


def text(asked: Formulated) -> str:
    paths: Any = asked.problem.paths
    return f"{asked} {paths.rtt_ms.tolist()}"


def test_a_question_that_was_kept_is_asked_anew_when_time_decides() -> None:
    """A silence would be tolerated for ever, and what failed once never tried again."""
    kept = Formulation()
    silent = _silent(_told_of(), NOW_S)
    placed = {PlacementKey("chat", "iad", L4): 2}
    toleration_s = FOR_CHAT.spec.failover.toleration_seconds
    first = kept(silent, target=placed, desired=placed, now_s=NOW_S + toleration_s - 1.0, aside={}, given_up={})
    assert first.present
    assert not kept(
        silent, target=placed, desired=placed, now_s=NOW_S + toleration_s + 1.0, aside={}, given_up={}
    ).present
    failed = replace(_told_of(), setbacks=Setbacks(backoffs={STUCK.key: STUCK}))
    barred = kept(failed, target=PLACED, desired=PLACED, now_s=NOW_S, aside={}, given_up={})
    again = kept(failed, target=PLACED, desired=PLACED, now_s=STUCK.until_s, aside={}, given_up={})
    assert (barred.present[0].replicas, again.present[0].replicas) == (1, 2)
    assert (barred.left_out, again.left_out) != (barred.left_out, barred.left_out)


def test_a_question_that_was_kept_is_asked_anew_for_another_placement() -> None:
    """Moves would be counted from where replicas no longer are."""
    kept, belief = Formulation(), _told_of()
    first = kept(belief, target=PLACED, desired=PLACED, now_s=NOW_S, aside={}, given_up={})
    more = {PlacementKey("chat", "fra", L4): 3}
    assert kept(belief, target=more, desired=PLACED, now_s=NOW_S, aside={}, given_up={}) is not first
    assert (
        kept(belief, target=PLACED, desired=more, now_s=NOW_S, aside={}, given_up={}).problem.current[0].replicas == 3
    )
    assert not kept(
        belief, target=PLACED, desired=PLACED, now_s=NOW_S, aside={"chat": "it fails"}, given_up={}
    ).problem.models


def test_what_a_millisecond_is_worth_comes_from_policy() -> None:
    """Users would be served from far away for a cent, whatever their platform team wrote."""
    mine, none = (documents.Objective(latency_usd_per_1000_per_ms=usd) for usd in (0.001, 0.0))
    cheap = documents.Objective(late_request_usd_per_1000=0.2, unserved_request_usd_per_1000=0.5)
    refuse = documents.Objective(late_request_usd_per_1000=0.5, unserved_request_usd_per_1000=0.5)
    asked = ((mine, 0.001), (none, 0.0), (documents.Objective(), 0.0005), (cheap, 0.0001), (refuse, 0.0))
    for objective, slope in asked:
        belief = heard(
            a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat", objective=objective),)),
            a_report("fra"),
            now_s=NOW_S,
        )
        (model,) = ask(belief).problem.models
        assert model.latency_usd_per_1000_per_ms == pytest.approx(slope + engine.NEARER_USD_PER_1000_PER_MS)


def test_what_a_door_counts_beyond_what_is_known_of_it_is_growth() -> None:
    """A front door that claims sixteen times its users would be served as if it had had them all along."""
    belief = world("fra", demand=(some_demand("chat", "Berlin", 20.0),))
    assert [one.grown_rps for one in ask(belief).problem.demands] == [0.0]
    more = a_report("fra", seq=2, demand=(some_demand("chat", "Berlin", 60.0), some_demand("chat", "Bonn", 20.0)))
    belief = heard(belief, more, now_s=NOW_S + 1)
    asked = {one.cell: one for one in ask(belief).problem.demands}
    assert (asked["Berlin"].requests_per_second, asked["Berlin"].grown_rps) == (60.0, 45.0)
    assert (asked["Bonn"].requests_per_second, asked["Bonn"].grown_rps) == (20.0, 15.0)
    known = levels.confirmed(80.0, NOW_S + 2, is_doubted=False)
    state = replace(belief.clusters["fra"], level=known)
    assert {one.grown_rps for one in ask(replace(belief, clusters={"fra": state})).problem.demands} == {0.0}


def test_replicas_of_a_cluster_that_says_more_than_there_can_be_replace_nobody() -> None:
    """What is ready elsewhere would be stopped, as a cluster whose counts are nonsense serves instead."""
    belief = world("fra", "iad", replicas=(replicas("chat", 4, 4),))
    assert {key[1] for key in belief.surely_ready_replicas()} == {"fra", "iad"}
    belief = heard(belief, a_report("fra", seq=2, replicas=(replicas("chat", 4, 1_000_000),)), now_s=NOW_S + 1)
    assert {key[1] for key in belief.ready_replicas()} == {"fra", "iad"}
    assert {key[1] for key in belief.surely_ready_replicas()} == {"iad"}


def curve(*points: tuple[float, float]) -> documents.Objective:
    """What latency costs, by (ms, USD per 1,000)."""
    return documents.Objective(
        latency_cost=tuple(documents.LatencyPoint(ms=ms, usd_per_1000=usd) for ms, usd in points)
    )


def asked_with(objective: documents.Objective, service_ms: float = 0.0) -> engine.Model:
    """The model that the engine is asked of, under a policy with this objective."""
    model = a_model("chat")
    model = msgspec.structs.replace(model, spec=msgspec.structs.replace(model.spec, service_latency_ms=service_ms))
    world = a_world("fra", models=(model,), policies=(a_policy("chat", objective=objective),))
    (made,) = ask(heard(world, a_report("fra"), now_s=NOW_S)).problem.models
    return made


def test_a_curve_costs_what_it_says_beyond_what_a_replica_takes() -> None:
    """Users would be kept near or sent far by another curve than their platform team drew."""
    drawn = curve((100.0, 0.1), (200.0, 0.1), (300.0, 0.3), (400.0, 1.0))
    says = {0.0: 0.0, 90.0: 0.0, 150.0: 0.0, 250.0: 0.1, 300.0: 0.2, 350.0: 0.55, 400.0: 0.9, 500.0: 1.6}
    for service_ms, taken in ((0.0, 0.0), (150.0, 0.0), (250.0, 0.1), (350.0, 0.55)):
        model = asked_with(drawn, service_ms)
        for latency_ms, usd in says.items():
            if latency_ms >= service_ms:
                tie = engine.NEARER_USD_PER_1000_PER_MS * (latency_ms - service_ms)
                assert model.way_usd_per_1000(latency_ms) == pytest.approx(usd - taken + tie)


def test_a_flat_curve_asks_exactly_what_no_price_asks() -> None:
    """Who takes the price of latency away again would get other plans than before."""
    none = asked_with(documents.Objective(latency_usd_per_1000_per_ms=0.0))
    for flat in (curve((0.0, 0.0)), curve((0.0, 0.5), (1000.0, 0.5)), curve((10.0, 0.1), (20.0, 0.1), (30.0, 0.1))):
        assert asked_with(flat) == none


def test_who_prefers_the_nearest_is_never_turned_away_for_it() -> None:
    """The nearest or nobody: far users of a cheap model would get an error in place of an answer."""
    cheap = documents.Objective(preference="nearest", late_request_usd_per_1000=0.1, unserved_request_usd_per_1000=0.2)
    model = asked_with(cheap)
    far = model.way_usd_per_1000(documents.FARTHEST_MS) + model.late_usd_per_1000
    assert model.unserved_usd_per_1000 > 1.9 * far


def test_what_runs_is_looked_through_once_whatever_the_size_of_the_fleet() -> None:
    """With each pool looking through all that runs, ten thousand clusters took the loop's time for seventeen seconds a
    minute, and nobody who waited for it was answered meanwhile."""

    class Counted(dict[PlacementKey, int]):
        seen = 0

        def __iter__(self) -> Iterator[PlacementKey]:
            Counted.seen += 1
            return super().__iter__()

    names = [f"fra-{at}" for at in range(20)]
    models, policies = (a_model("chat"),), (a_policy("chat"),)
    world = heard(a_world(*names, models=models, policies=policies), *(a_report(name) for name in names))
    counted = Counted({PlacementKey("chat", name, L4): 1 for name in names})
    pools, _ = problem._pools(world, {}, counted, 0.0, [])
    assert len(pools) == len(names) and Counted.seen == 1
