"""The compact snapshot: who holds it answers as the controller would."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.latency.sphere import great_circle_km
from federation.state.reduce import CordonsSet
from federation.state.world import Cordon
from federation.traffic.snapshot import CellEntry, ClusterEntry, Index, ModelEntry, RouteSnapshot, build, pick
from tests.builders import told
from tests.unit.traffic.test_table import ROUTES, RULE, capped, routed, undecided, world_of

KEYS = [f"session-{number}" for number in range(4000)]


@pytest.mark.parametrize("parts", [(("a", 0.7), ("b", 0.3)), (("a", 0.5), ("b", 0.3), ("c", 0.2)), (("a", 1.0),)])
def test_keys_fall_to_clusters_by_their_shares(parts: tuple[tuple[str, float], ...]) -> None:
    """The plan's shares would be anything."""
    found = Counter(pick(key, parts) for key in KEYS)
    assert {name: found[name] / len(KEYS) for name, _ in parts} == pytest.approx(dict(parts), abs=0.03)


def test_a_step_of_a_shift_moves_its_own_part_of_keys_alone() -> None:
    """Every session would lose its cache at every step."""
    before = {key: pick(key, (("a", 0.8), ("b", 0.2))) for key in KEYS}
    after = {key: pick(key, (("a", 0.6), ("b", 0.4))) for key in KEYS}
    moved = [key for key in KEYS if before[key] != after[key]]
    assert len(moved) / len(KEYS) == pytest.approx(0.2, abs=0.03)
    assert all(after[key] == "b" for key in moved)


places = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(cells=st.lists(places, min_size=1, max_size=20), user=places)
def test_the_nearest_cell_decides(cells: list[tuple[float, float]], user: tuple[float, float]) -> None:
    """A user would be sent where the plan serves people elsewhere."""
    snapshot = RouteSnapshot(
        clusters=(ClusterEntry("fra", "192.0.2.1", 443, 50.0, 8.0),),
        models=(
            ModelEntry(
                "chat", 30, tuple(CellEntry(str(n), "DE", *place, ((0, 1),)) for n, place in enumerate(cells)), (), ()
            ),
        ),
    )
    entry = Index(snapshot).at("chat", *user)
    assert entry is not None
    chosen_km = great_circle_km(*user, *cells[int(entry.answer.cell)])
    assert chosen_km <= min(great_circle_km(*user, *cell) for cell in cells) + 0.5


def test_a_snapshot_says_the_same_after_a_journey() -> None:
    """An edge function would send users elsewhere than the controller does."""
    made = build(world_of(residency=(RULE,)), ROUTES)
    again = msgspec.json.decode(Index(made).body, type=RouteSnapshot)
    for place in ((52.5, 13.4, ""), (40.7, -74.0, "DE"), (40.7, -74.0, "US"), (0.0, 0.0, "")):
        ours, theirs = Index(made).at("chat", *place), Index(again).at("chat", *place)
        assert ours is not None
        assert theirs is not None
        assert ours.body == theirs.body


def test_a_user_of_an_unknown_place_is_served_where_everyone_may_be() -> None:
    """Data of users whose place nobody knows would leave the jurisdiction that some of them are bound to."""
    entry = Index(build(world_of(residency=(RULE,)), ROUTES)).anywhere("chat")
    assert entry is not None
    assert {one.cluster for one in entry.answer.clusters} <= {"fra", "par"}


@pytest.mark.parametrize(
    ("place", "helpers"),
    [
        pytest.param((52.5, 13.4, "DE"), [], id="Berlin's have all that residency admits already"),
        pytest.param((47.4, 8.5, "CH"), ["fra", "par"], id="Zurich's may go anywhere, the nearest first"),
        pytest.param((40.7, -74.0, "US"), ["par", "fra"], id="who serves already is no helper"),
        pytest.param((40.7, -74.0, "DE"), [], id="a German in New York has no other"),
    ],
)
def test_who_could_help_is_named_by_residency_and_distance(place: tuple[float, float, str], helpers: list[str]) -> None:
    """Without a controller, users of a lost region would be told a door that is shut, or one that is forbidden."""
    entry = Index(build(world_of(residency=(RULE,)), ROUTES)).at("chat", *place)
    assert entry is not None
    assert [one.cluster for one in entry.answer.helpers] == helpers


def test_users_of_an_undecided_cell_are_helped_by_whom_the_rules_of_each_country_admit() -> None:
    """A member's word against another's would send users out of their jurisdiction when a region is lost."""
    routes = routed(Berlin={"fra": 1.0}, Zurich={"par": 1.0}, New_York={"iad": 1.0})
    index = Index(build(undecided(), routes))
    for entry in (index.cell("chat", "Zurich"), index.at("chat", 47.4, 8.5, "DE"), index.at("chat", 47.4, 8.5)):
        assert entry is not None
        told = {one.cluster for one in (*entry.answer.clusters, *entry.answer.helpers)}
        assert "iad" not in told and told
    nearest = index.at("chat", 40.7, -74.0, "CH")
    assert nearest is not None and nearest.answer.cell == "Zurich", "it is among the cells of each"
    swiss = index.cell("chat", "Zurich", "CH")
    assert swiss is not None and "iad" in {one.cluster for one in swiss.answer.helpers}, "who says where he is"


@pytest.mark.parametrize(
    ("percent", "place", "clusters", "helpers"),
    [
        pytest.param(0, (52.5, 13.4, "DE"), ["fra", "par"], [], id="all of the continent serve already"),
        pytest.param(0, (40.7, -74.0, "US"), ["iad"], [], id="there is no other on it"),
        pytest.param(0, (40.7, -74.0, "FR"), ["par"], ["fra"], id="the user's country counts, not the nearest cell's"),
        pytest.param(0, (47.4, 8.5, "CH"), ["fra", "par"], [], id="a plan from before the policy changed"),
        pytest.param(0, (40.7, -74.0, "XX"), [], [], id="a country that nobody knows"),
        pytest.param(30, (40.7, -74.0, "US"), ["iad"], [], id="a cap: nobody helps unplanned from elsewhere"),
        pytest.param(30, (47.4, 8.5, "CH"), ["iad"], ["fra", "par"], id="a cap: what is planned stays"),
        pytest.param(100, (40.7, -74.0, "US"), ["iad"], ["par", "fra"], id="no cap"),
    ],
)
def test_a_cap_on_other_continents_holds_for_who_is_told_of_them(
    percent: float, place: tuple[float, float, str], clusters: list[str], helpers: list[str]
) -> None:
    """Edge functions and DNS would send users where gateways refuse them, or where policy lets nobody be served."""
    entry = Index(build(capped(percent), ROUTES)).at("chat", *place)
    assert [one.cluster for one in (entry.answer.clusters if entry is not None else ())] == clusters
    assert [one.cluster for one in (entry.answer.helpers if entry is not None else ())] == helpers


def test_who_comes_from_nobody_knows_where_is_told_nobody_when_none_may_leave() -> None:
    """Unknown is not the same continent."""
    assert Index(build(capped(0), ROUTES)).anywhere("chat") is None


def test_a_snapshot_without_caps_carries_no_countries() -> None:
    """Every edge function would fetch a table that it has no use for."""
    assert build(capped(100), ROUTES).continents == ()
    again = msgspec.json.decode(Index(build(capped(0), ROUTES)).body, type=RouteSnapshot)
    assert dict(again.continents) == {"EU": "CH DE FR", "NA": "US"}


def test_an_unknown_place_is_helped_only_by_whom_every_rule_admits() -> None:
    """In a failover, data of users whose place nobody knows would leave their jurisdiction."""
    entry = Index(build(world_of(residency=(RULE,)), ROUTES)).anywhere("chat")
    assert entry is not None
    assert "iad" not in {one.cluster for one in (*entry.answer.clusters, *entry.answer.helpers)}


def test_a_cordoned_cluster_helps_nobody() -> None:
    """Whoever empties a region would have it filled from behind."""
    world = told(world_of(), CordonsSet(cordons={"par": Cordon(reason="maintenance", drain=False)}))
    entry = Index(build(world, ROUTES)).at("chat", 47.4, 8.5, "CH")
    assert entry is not None
    assert "par" not in {one.cluster for one in entry.answer.helpers}


def test_a_key_goes_to_a_helper_only_when_all_planned_are_out() -> None:
    """Sessions would leave their replica, and its cache, while it serves."""
    entry = Index(build(world_of(), ROUTES)).at("chat", 47.4, 8.5, "CH")
    assert entry is not None
    planned = frozenset(one.cluster for one in entry.answer.clusters)
    first, *_ = [one.cluster for one in entry.answer.helpers]
    assert entry.pick("key") in planned
    assert entry.pick("key", planned) == first
    assert entry.pick("key", planned | {one.cluster for one in entry.answer.helpers}) in planned, "nobody is left"


def test_equal_routes_have_equal_versions() -> None:
    """Whoever waits for a change would be woken by every report."""
    assert build(world_of(), ROUTES).version == build(world_of(), ROUTES).version
