"""Distances, rhythm and story of the demo's world."""

from __future__ import annotations

import random
import statistics

import msgspec
import pytest

from federation.demo.catalogue import Outage, PriceRise, SpotGone, Surge
from federation.demo.physics import Physics

SAMPLES = [hour / 24 for hour in range(24)]


def test_round_trips_are_symmetric_and_above_zero(physics: Physics) -> None:
    """Agents at the two ends would report contradictions."""
    for a in physics.clusters:
        for b in physics.clusters:
            assert physics.site_rtt_ms(a, b) == physics.site_rtt_ms(b, a)
            assert (physics.site_rtt_ms(a, b) > 0) == (a != b)
    assert min(physics.user_rtt_ms(cell, name) for cell in physics.places for name in physics.clusters) > 0


@pytest.mark.parametrize(
    ("cluster", "other", "region", "other_region"),
    [
        ("aws-us-east-1", "aws-eu-central-1", "us-east-1", "eu-central-1"),
        ("aws-ap-northeast-1", "aws-sa-east-1", "ap-northeast-1", "sa-east-1"),
        ("gcp-asia-south1", "azure-germanywestcentral", "ap-south-1", "eu-central-1"),
        ("aws-eu-central-1", "gcp-europe-west3", "eu-central-1", "eu-central-1"),
    ],
)
def test_measured_pairs_are_the_matrix(
    physics: Physics, cluster: str, other: str, region: str, other_region: str
) -> None:
    """The demo would claim measured round trips and show invented ones."""
    names = list(physics.catalogue.rtt.rtt_ms)
    late, early = sorted((region, other_region), key=names.index, reverse=True)
    assert physics.site_rtt_ms(cluster, other) == physics.catalogue.rtt.rtt_ms[late][names.index(early)]


def test_elsewhere_by_distance(physics: Physics) -> None:
    """Sites far from any measured region would have no latency, or a wrong one. Lagos-Cairo is 3,923 km."""
    assert physics.site_rtt_ms("edge-los", "edge-cai") == pytest.approx(8.9 + 0.01573 * 3923, abs=1.0)


def test_an_edge_site_is_nearer_to_its_city_than_any_cloud(physics: Physics) -> None:
    """The edge would have no reason to be on the map."""
    for cell, site in (("Tokyo", "edge-nrt"), ("London", "edge-lhr"), ("Lagos", "edge-los"), ("Mumbai", "edge-bom")):
        assert physics.nearest[cell][0] == site
        assert physics.front_door(cell, 0.0) == site


def test_measurements_scatter_around_the_truth(physics: Physics) -> None:
    """The controller would be given the truth, and its estimate would be tested by nothing."""
    rng = random.Random(7)
    truth_ms = physics.site_rtt_ms("edge-los", "edge-cai")
    seen = [physics.measured_rtt_ms("edge-los", "edge-cai", rng) for _ in range(400)]
    assert statistics.mean(seen) == pytest.approx(truth_ms, rel=0.01)
    assert 0.02 < statistics.stdev(seen) / truth_ms < 0.04


@pytest.mark.parametrize("cell", ["Tokyo", "New York", "London", "Sao Paulo", "Mumbai", "Sydney"])
def test_demand_peaks_in_the_local_evening(physics: Physics, cell: str) -> None:
    """Demand would not follow the sun, and nothing would have to move. A surge is left out of the hours compared."""
    surges = [event for event in physics.catalogue.day.story if isinstance(event, Surge)]
    quiet = [t / 240 for t in range(240) if not any(event.is_on(t / 240) for event in surges)]
    peak = max(quiet, key=lambda t: physics.demand_rps(t, cell, "ranking"))
    low = min(quiet, key=lambda t: physics.demand_rps(t, cell, "ranking"))
    lon = physics.places[cell].lon
    assert 14 <= (peak * 24 + lon / 15) % 24 <= 22
    assert 2 <= (low * 24 + lon / 15) % 24 <= 6


def test_the_hours_have_mean_one(physics: Physics) -> None:
    """Requests per user would not be those that day.yaml names."""
    assert statistics.mean(physics.catalogue.day.demand.hourly) == pytest.approx(1.0, abs=0.005)


def test_every_event_does_what_it_says(physics: Physics) -> None:
    """The terminal would tell a story that the world does not live through."""
    kinds = set()
    for event in physics.catalogue.day.story:
        kinds.add(type(event))
        during, after = (event.start + event.until) / 2, event.until + 1e-6
        assert event in physics.story(during)
        assert event not in physics.story(after)
        match event:
            case PriceRise():
                for name in event.clusters:
                    listed = {p.usd_per_device_hour for p in physics.clusters[name].spec.accelerators}
                    risen = {p.usd_per_device_hour for p in physics.pools(name, during)}
                    assert sorted(risen) == pytest.approx(sorted(usd * event.factor for usd in listed))
            case SpotGone():
                for name, cluster in physics.clusters.items():
                    spot = [p.devices for p in physics.pools(name, during) if p.key.market == "spot"]
                    assert all(n == 0 for n in spot) == (cluster.spec.provider == event.provider) or not spot
            case Outage():
                for name in physics.clusters:
                    assert physics.is_alive(name, during) == (name not in event.clusters)
                    assert physics.is_alive(name, after)
                assert all(physics.front_door(cell, during) not in event.clusters for cell in physics.places)
            case Surge():
                for cell, place in physics.places.items():
                    factor = event.factor if place.continent == event.continent else 1.0
                    plain = _without_story(physics).demand_rps(during, cell, "chat-8b")
                    assert physics.demand_rps(during, cell, "chat-8b") == pytest.approx(plain * factor)
    assert kinds == {PriceRise, SpotGone, Outage, Surge}


def _without_story(physics: Physics) -> Physics:
    day = msgspec.structs.replace(physics.catalogue.day, story=())
    return Physics(msgspec.structs.replace(physics.catalogue, day=day))


def test_residency_is_read_from_the_policies(physics: Physics) -> None:
    """Plans of other tools would serve users where ours may not, and look better by it."""
    assert not physics.may_serve("chat-8b", "Berlin", "aws-us-east-1")
    assert physics.may_serve("chat-8b", "Berlin", "aws-eu-central-1")
    assert physics.may_serve("chat-8b", "New York", "aws-us-east-1")
    assert not physics.may_serve("speech-to-text", "Delhi", "gcp-asia-southeast1")
    assert physics.may_serve("speech-to-text", "Delhi", "gcp-asia-south1")
    assert physics.may_serve("ranking", "Berlin", "aws-us-east-1")


@pytest.mark.parametrize("day_fraction", SAMPLES)
def test_the_day_repeats(physics: Physics, day_fraction: float) -> None:
    """A demo that runs longer than a day would fall silent."""
    assert physics.demand(day_fraction + 2.0) == pytest.approx(physics.demand(day_fraction))
    assert physics.story(day_fraction + 1.0) == physics.story(day_fraction)
