"""The score, against figures reckoned by hand."""

from __future__ import annotations

import pytest

from federation.demo.scoring import Observed, Score, WorstCell, moves_between
from federation.state.keys import ModelCell, PlacementKey
from federation.wire.messages import PoolKey
from tests.unit.demo import tiny

L4 = PoolKey(product="L4")
L4_SPOT = PoolKey(product="L4", market="spot")
BERLIN, TOKYO = ModelCell(("chat", "Berlin")), ModelCell(("chat", "Tokyo"))
THERE = {BERLIN: {"berlin": 1.0}, TOKYO: {"tokyo": 1.0}}


def observed(berlin: int, tokyo: int, *, warming: int = 0, shares: dict[ModelCell, dict[str, float]]) -> Observed:
    ready = {PlacementKey("chat", "berlin", L4): berlin, PlacementKey("chat", "tokyo", L4): tokyo}
    return Observed(ready=ready, held=ready | {PlacementKey("chat", "tokyo", L4): tokyo + warming}, shares=shares)


def test_a_day_by_hand() -> None:
    """The summary's figures, by which planners are compared, would be wrong.

    Hour one: Berlin asks 100/s of four replicas that serve 25/s each; Tokyo 40/s of one: 15/s unserved. Six devices,
    one of them warming up, at one dollar. Hour two: all go to Tokyo, 140/s on 100/s of capacity: 5/7 served, of which
    Berlin's part is 8,900 km away and late.
    """
    score = Score(tiny.world([tiny.berlin(), tiny.tokyo()]))
    score.add(0.0, 1.0, observed(4, 1, warming=1, shares=THERE))
    score.add(0.5, 1.0, observed(0, 4, shares={BERLIN: {"tokyo": 1.0}, TOKYO: {"tokyo": 1.0}}))
    summary = score.summary()
    berlin_within, tokyo_within = 100 + 0, 25 + 40 * 5 / 7
    unserved = 15 + 140 * 2 / 7
    assert summary.within_objective_share == pytest.approx((berlin_within + tokyo_within) / 280)
    assert summary.unserved_share == pytest.approx(unserved / 280)
    assert summary.usd_per_hour == pytest.approx((6 + 4) / 2)
    assert summary.moves == 2
    assert summary.worst_cell == WorstCell(name="Berlin", within_objective_share=0.5)
    home, away = (score._physics.user_rtt_ms("Berlin", name) for name in ("berlin", "tokyo"))
    tokyo = score._physics.user_rtt_ms("Tokyo", "tokyo")
    at_home, far, there = 100.0, 100 * 5 / 7, 25 + 40 * 5 / 7
    assert summary.rtt_ms_mean == pytest.approx((at_home * home + far * away + there * tokyo) / (at_home + far + there))
    assert summary.nearest_rtt_ms_mean == pytest.approx(
        ((at_home + far) * home + there * tokyo) / (at_home + far + there)
    )


def test_what_is_sent_nowhere_is_unserved() -> None:
    """A planner could look good by routing only the users whom it serves well."""
    score = Score(tiny.world([tiny.berlin(), tiny.tokyo()]))
    score.add(0.0, 1.0, observed(4, 0, shares={BERLIN: {"berlin": 0.5}}))
    assert score.summary().unserved_share == pytest.approx((50 + 40) / 140)
    assert score.summary().worst_cell.name == "Tokyo"


def test_a_lost_cluster_serves_nothing_and_is_not_paid_for() -> None:
    """Planners would be credited with requests that nobody answered."""
    gone = {"kind": "outage", "from": 0.0, "until": 0.5, "says": "gone", "clusters": ["berlin"]}
    score = Score(tiny.world([tiny.berlin(), tiny.tokyo()], story=[gone]))
    score.add(0.25, 1.0, observed(4, 2, shares=THERE))
    assert score.summary().unserved_share == pytest.approx(100 / 140)
    assert score.summary().usd_per_hour == pytest.approx(2.0)


def test_spot_that_is_taken_back_serves_nothing_and_is_not_paid_for() -> None:
    """The same, for devices that a provider takes back."""
    gone = {"kind": "spot-gone", "from": 0.0, "until": 0.5, "says": "gone", "provider": "acme"}
    world = tiny.world([tiny.berlin(tiny.pool(), tiny.pool("spot", usd=0.3)), tiny.tokyo()], story=[gone])
    ready = {
        PlacementKey("chat", "berlin", L4): 2,
        PlacementKey("chat", "berlin", L4_SPOT): 2,
        PlacementKey("chat", "tokyo", L4): 2,
    }
    for day_fraction, unserved, usd in ((0.25, 50 / 140, 4.0), (0.75, 0.0, 4.6)):
        score = Score(world)
        score.add(day_fraction, 1.0, Observed(ready=ready, held=ready, shares=THERE))
        assert score.summary().unserved_share == pytest.approx(unserved)
        assert score.summary().usd_per_hour == pytest.approx(usd)


def test_nothing_scored_is_said() -> None:
    """An empty day would divide by zero, or count as a perfect one."""
    with pytest.raises(ValueError, match="nothing"):
        Score(tiny.world([tiny.berlin()])).summary()


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        pytest.param({"a": 2}, {"a": 3}, 0, id="a-start-alone-is-no-move"),
        pytest.param({"a": 2}, {"a": 1, "b": 1}, 1, id="one-stops-one-starts"),
        pytest.param({"a": 3}, {"b": 1, "c": 4}, 3, id="as-many-as-have-a-partner"),
        pytest.param({}, {"a": 5}, 0, id="the-first-placement"),
    ],
)
def test_moves(before: dict[str, int], after: dict[str, int], moves: int) -> None:
    """Growing with demand would count as moving."""
    keyed = [{PlacementKey("chat", name, L4): n for name, n in counts.items()} for counts in (before, after)]
    assert moves_between(*keyed) == moves


def test_between_pools_of_one_cluster_is_no_move() -> None:
    """A change from spot to on-demand in place would count as a move between clusters."""
    assert moves_between({PlacementKey("chat", "a", L4): 2}, {PlacementKey("chat", "a", L4_SPOT): 2}) == 0
