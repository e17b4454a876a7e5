from __future__ import annotations

import numpy as np
import pytest

from federation.latency import places
from federation.latency.estimator import Estimator, Fleet, Pairs
from federation.latency.line import Line, fit
from federation.latency.sphere import Vectors, between_km, on_the_sphere, paired_km

CITIES = {
    "london": (51.5, -0.1),
    "paris": (48.9, 2.4),
    "frankfurt": (50.1, 8.7),
    "madrid": (40.4, -3.7),
    "warsaw": (52.2, 21.0),
    "new-york": (40.7, -74.0),
    "chicago": (41.9, -87.6),
    "dallas": (32.8, -96.8),
    "seattle": (47.6, -122.3),
    "toronto": (43.7, -79.4),
    "tokyo": (35.7, 139.7),
    "singapore": (1.35, 103.8),
    "sydney": (-33.9, 151.2),
    "mumbai": (19.1, 72.9),
    "sao-paulo": (-23.5, -46.6),
}
NAMES = tuple(CITIES)
AT = on_the_sphere(tuple(CITIES.values()))
TRUE = Line(base_ms=4.0, ms_per_km=0.016)


def _mesh(at: Vectors, clusters: int, spread: float = 0.05, seed: int = 1) -> Pairs:
    one, other = np.triu_indices(clusters, 1)
    rng = np.random.default_rng(seed)
    ms = TRUE.at(paired_km(at[one], at[other])) * np.exp(rng.normal(0.0, spread, len(one)))
    return Pairs(one=one, other=other, rtt_ms=ms)


def _users(count: int, seed: int = 2) -> Vectors:
    rng = np.random.default_rng(seed)
    made = AT[rng.integers(0, len(AT), count)] + rng.normal(0.0, 0.03, (count, 3))
    return np.asarray(made / np.linalg.norm(made, axis=1)[:, None])


def _made(clusters: Vectors, users: Vectors, between: Pairs, own: Pairs) -> Estimator:
    return Estimator(Fleet(clusters=clusters, users=users, between=between, own=own), own)


def _share(made: Estimator, cluster: int) -> float:
    return float((made.rtt_ms().argmin(axis=1) == cluster).mean())


def test_a_line_is_not_bent_by_what_fits_nowhere() -> None:
    """One broken source would shift every user's estimate."""
    km = np.linspace(100.0, 15_000.0, 60)
    ms = TRUE.at(km)
    ms[::10] = 10_000.0
    found = fit(km, ms)
    assert found.base_ms == pytest.approx(TRUE.base_ms, abs=3.0)
    assert found.ms_per_km == pytest.approx(TRUE.ms_per_km, rel=0.02)


def test_without_measurements_it_is_the_line_that_is_known_beforehand() -> None:
    """A fleet that just began would have no plan."""
    made = _made(AT[:3], AT[3:6], Pairs.none(), Pairs.none())
    by_line = made.fleet.line.at(between_km(AT[3:6], AT[:3]))
    assert made.rtt_ms() == pytest.approx(by_line, rel=1e-5)
    assert np.isfinite(made.sigma).all()


def test_what_clusters_measured_holds_for_users_beside_them() -> None:
    """Users beside a cluster whose way to another is a detour would be sent on it."""
    mesh = _mesh(AT, 12, spread=0.0)
    slow = (mesh.one == NAMES.index("london")) & (mesh.other == NAMES.index("tokyo"))
    slow |= (mesh.one == NAMES.index("paris")) & (mesh.other == NAMES.index("tokyo"))
    mesh = Pairs(one=mesh.one, other=mesh.other, rtt_ms=np.where(slow, 2.0, 1.0) * mesh.rtt_ms)
    brussels = on_the_sphere([(50.8, 4.4)])
    made = _made(AT[:12], brussels, mesh, Pairs.none())
    by_line = made.fleet.line.at(between_km(brussels, AT[:12]))[0]
    tokyo, singapore = NAMES.index("tokyo"), NAMES.index("singapore")
    assert made.rtt_ms()[0, tokyo] > 1.2 * by_line[tokyo]
    assert made.rtt_ms()[0, tokyo] / by_line[tokyo] > 1.1 * made.rtt_ms()[0, singapore] / by_line[singapore]


def test_a_measured_pair_is_what_was_measured_and_tells_of_its_neighbours() -> None:
    """Users would be sent by an estimate although somebody knows better."""
    users = on_the_sphere([(39.0, -77.0), (39.3, -76.6)])
    mesh = _mesh(AT, 10)
    own = Pairs(one=np.array([0, 0]), other=np.array([0, 5]), rtt_ms=np.array([180.0, 30.0]))
    plain = _made(AT[:10], users, mesh, Pairs.none())
    made = _made(AT[:10], users, mesh, own)
    assert made.rtt_ms()[0, [0, 5]] == pytest.approx([180.0, 30.0])
    assert made.rtt_ms()[1, 0] > 1.1 * plain.rtt_ms()[1, 0]
    assert (made.sigma[0] <= plain.sigma[0] + 1e-6).all()
    assert made.sigma[0, 0] < 0.8 * plain.sigma[0, 0]


def test_a_user_that_is_told_anew_gets_what_a_whole_estimate_gives() -> None:
    """Between whole estimates users would be served by what is long past."""
    users, mesh = _users(40), _mesh(AT, 12)
    ms = TRUE.at(between_km(users, AT[:12]))[np.arange(40), np.arange(40) % 12]
    first = Pairs(one=np.arange(40), other=np.arange(40) % 12, rtt_ms=ms)
    later = Pairs(one=first.one, other=first.other, rtt_ms=np.where(first.one == 7, 1.5, 1.0) * ms)
    whole = _made(AT[:12], users, mesh, later)
    made = _made(AT[:12], users, mesh, first)
    made.tell(7, first.other[7:8], later.rtt_ms[7:8])
    assert made.rtt_ms()[7] == pytest.approx(whole.rtt_ms()[7], rel=1e-3)


def test_a_place_that_physics_refutes_is_moved_to_where_measurements_put_it() -> None:
    """Toledo in Ohio has a namesake in Spain: its users would be served across an ocean."""
    wrong = AT.copy()
    toronto, madrid = NAMES.index("toronto"), NAMES.index("madrid")
    wrong[toronto] = AT[madrid]
    mesh = _mesh(AT, len(AT))
    found, moved = places.relocate(wrong, mesh.one, mesh.other, mesh.rtt_ms, TRUE)
    assert [one.site for one in moved] == [toronto]
    assert moved[0].impossible > 0
    assert moved[0].fastest_ms < moved[0].fastest_km / 100.0
    assert paired_km(found[toronto : toronto + 1], AT[toronto : toronto + 1])[0] < 1200.0


def test_nothing_is_moved_where_nothing_is_impossible() -> None:
    """A slow way would be taken for a wrong place, and its users be sent elsewhere."""
    mesh = _mesh(AT, len(AT), spread=0.3)
    ms = np.maximum(mesh.rtt_ms, paired_km(AT[mesh.one], AT[mesh.other]) / 99.0 + 1.0)
    found, moved = places.relocate(AT, mesh.one, mesh.other, ms, TRUE)
    assert not moved
    assert (found == AT).all()


@pytest.mark.parametrize("lie_ms", [1.0, 10_000.0])
def test_a_lying_cluster_draws_no_users(lie_ms: float) -> None:
    """One broken agent would take the traffic of a continent, or push it away from honest clusters."""
    users = _users(300)
    honest = _mesh(AT, 15)
    plain = _made(AT, users, honest, Pairs.none())
    assert not plain.fleet.refused
    for liar in (0, 5, 10):
        mine = (honest.one == liar) | (honest.other == liar)
        mesh = Pairs(one=honest.one, other=honest.other, rtt_ms=np.where(mine, lie_ms, honest.rtt_ms))
        made = _made(AT, users, mesh, Pairs.none())
        assert _share(made, liar) <= 1.5 * _share(plain, liar) + 0.01
        assert all(one.site == liar for one in made.fleet.refused)
        assert lie_ms > 1.0 or made.fleet.refused
        others = [at for at in range(15) if at != liar]
        assert sum(_share(made, at) for at in others) > 0.9 * sum(_share(plain, at) for at in others)


def test_what_is_asked_for_may_be_the_nearest() -> None:
    """A measurement that cannot change who serves whom is wasted."""
    users, mesh = _users(60), _mesh(AT, 15)
    made = _made(AT, users, mesh, Pairs.none())
    asked = made.ask()
    km = between_km(users, AT)
    rank = (km < np.take_along_axis(km, asked[:, None], axis=1)).sum(axis=1)
    assert rank.max() <= 5
    own = Pairs(one=np.arange(60), other=asked, rtt_ms=TRUE.at(km[np.arange(60), asked]))
    again = _made(AT, users, mesh, own).ask()
    assert (again != asked).all()


def test_clusters_side_by_side_are_no_liars_and_bend_no_way() -> None:
    """Fleets have several clusters in one city, which measure half a millisecond: all would be refused, and users a
    thousand kilometres away seem to be beside them."""
    at = np.repeat(AT[[0, 2, 5]], 5, axis=0)
    one, other = np.triu_indices(len(at), 1)
    km = paired_km(at[one], at[other])
    mesh = Pairs(one=one, other=other, rtt_ms=np.where(km < 1.0, 0.5, TRUE.at(km)))
    users = on_the_sphere([(47.4, 8.5), (55.7, 12.6), (43.3, 5.4)])
    made = _made(at, users, mesh, Pairs.none())
    assert not made.fleet.refused
    assert (made.rtt_ms() > between_km(users, at) / 100.0 + 1.0).all()
    near_by = _made(AT[[0, 1, 2]], users, Pairs(one=one[:0], other=other[:0], rtt_ms=km[:0]), Pairs.none())
    assert made.rtt_ms()[:, 5] == pytest.approx(near_by.rtt_ms()[:, 2], rel=0.4)


def test_a_fleet_in_one_country_whose_ways_are_short_is_believed() -> None:
    """The line says 12 ms for 200 km, where 4 are usual: every cluster would be refused."""
    at = on_the_sphere([(52.5, 13.4), (53.6, 10.0), (50.1, 8.7), (48.1, 11.6), (51.2, 6.8), (51.3, 12.4)])
    one, other = np.triu_indices(len(at), 1)
    mesh = Pairs(one=one, other=other, rtt_ms=1.0 + 0.013 * paired_km(at[one], at[other]))
    made = _made(at, at, mesh, Pairs.none())
    assert not made.fleet.refused
    assert not made.fleet.moved
