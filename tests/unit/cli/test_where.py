"""Where devices could be had now: what is free, what it costs, and why not elsewhere."""

from __future__ import annotations

from typing import Any

from federation.api import views
from federation.cli.where import Place, places

H100 = "NVIDIA-H100-80GB-HBM3"


def cluster(name: str, free: int | None, *, largest: int | None = None, **fields: Any) -> views.ClusterView:
    """A cluster with one pool of H100 on demand."""
    pool = views.PoolView(
        name=f"{H100}/on-demand",
        product=H100,
        mig_profile="",
        market="on-demand",
        vram_gib=80.0,
        allocatable=16,
        free=free,
        usd_per_device_hour=0.0,
        largest_free=largest,
    )
    values: dict[str, Any] = {
        "provider": "aws", "region": "r", "zone": "", "tier": "cloud", "city": "", "country": "DE", "lat": 0.0,
        "lon": 0.0, "jurisdictions": (), "phase": "ready", "cordoned": False, "draining": False, "worst_state": "ok",
        "reason": "", "report_age_s": 1.0, "accelerators": 16, "pools": (pool,), "replicas": (), "ack": None,
    }  # fmt: skip
    return views.ClusterView(name=name, **(values | fields))


def price(name: str, usd: float | None) -> views.PriceView:
    """What its H100 cost."""
    return views.PriceView(
        cluster=name,
        pool=f"{H100}/on-demand",
        usd_per_device_hour=usd,
        source="catalogue" if usd is not None else "",
        age_s=None,
        catalogue_usd=usd,
        offer="",
        doubt="",
        losses_per_hour=0.0,
        replacement_chance=1.0,
        seen_hours=0.0,
    )


def found(*clusters: views.ClusterView, usd: dict[str, float | None], one_node: bool = False) -> list[Place]:
    """Where eight H100 could go."""
    prices = {(name, f"{H100}/on-demand"): price(name, value) for name, value in usd.items()}
    return places(clusters, prices, "H100", 8, None, one_node)


def test_the_cheapest_with_enough_free_comes_first_and_others_say_why_not() -> None:
    """Somebody who needs eight H100 tonight would open a ticket with five teams."""
    growth = views.GrowthView(
        group="g", source="cluster-autoscaler", pool=f"{H100}/on-demand", devices=8, provisioning_s=300.0
    )
    listed = found(
        cluster("dear", 8, largest=8),
        cluster("cheap", 12, largest=4),
        cluster("full", 2, growth=(growth,)),
        cluster("gone", 16, phase="unreachable"),
        cluster("cordoned", 16, cordoned=True),
        cluster("silent", None),
        cluster("unpriced", 16),
        usd={"dear": 7.0, "cheap": 3.0, "full": 1.0, "gone": 1.0, "cordoned": 1.0, "silent": 1.0, "unpriced": None},
    )
    assert [(one.cluster, one.usd_per_hour) for one in listed if not one.why_not] == [("cheap", 24.0), ("dear", 56.0)]
    why = {one.cluster: one.why_not for one in listed if one.why_not}
    assert why == {
        "full": "2 of 16 are free; an autoscaler could add 8",
        "gone": "the cluster is unreachable",
        "cordoned": "the cluster is cordoned",
        "silent": "its agent has not reported it",
        "unpriced": "it has no price, so nothing is placed there",
    }


def test_all_on_one_node_is_another_question() -> None:
    """A replica over eight devices would be sent to two halves of them."""
    listed = found(
        cluster("halves", 12, largest=4), cluster("whole", 8, largest=8), cluster("unknown", 8),
        usd={"halves": 1.0, "whole": 2.0, "unknown": 1.0}, one_node=True,
    )  # fmt: skip
    assert [one.cluster for one in listed if not one.why_not] == ["whole"]


def test_a_word_of_the_name_finds_the_product_and_no_other() -> None:
    """`L4` would list L40S, or `H100` nothing, as nobody types what the driver prints."""
    assert places([cluster("fra", 8)], {}, "h100-80gb", 1, None, False)
    assert places([cluster("fra", 8)], {}, H100, 1, None, False)
    assert not places([cluster("fra", 8)], {}, "H10", 1, None, False)
    assert not places([cluster("fra", 8)], {}, "H100", 1, "spot", False)
