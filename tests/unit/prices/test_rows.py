"""Rows of price feeds: prices of devices, omissions with their place, and names that mean a product."""

from __future__ import annotations

import pytest

from federation.prices.rows import Collector, FeedError, Offer, similarity

OFFER = Offer("aws", "eu-central-1", "", "g6.12xlarge", "L4", "on-demand")


def test_an_instances_price_is_shared_by_its_devices() -> None:
    """A device of a large instance would cost as much as all of them."""
    collector = Collector("test")
    collector.add(OFFER, 4.0, 4.0, "line 2")
    (price,) = collector.parsed().prices
    assert price.usd_per_device_hour == 1.0


@pytest.mark.parametrize("usd", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_price_is_left_out_with_its_line(usd: float) -> None:
    """A device would cost nothing, and every replica would go there."""
    collector = Collector("test")
    collector.add(OFFER, usd, 1.0, "line 7")
    with pytest.raises(FeedError, match="line 7"):
        collector.parsed()


def test_many_like_faults_are_one_sentence() -> None:
    """A feed of thousands of unknown rows would fill the log."""
    collector = Collector("test")
    collector.add(OFFER, 1.0, 1.0, "line 1")
    for number in range(1000):
        collector.leave_out("no region", f"line {number + 2}")
    parsed = collector.parsed()
    assert parsed.problems == ("no region: line 2, and 999 more",)
    assert parsed.left_out == 1000


@pytest.mark.parametrize(
    ("name", "product", "is_same"),
    [
        ("H100", "NVIDIA-H100-80GB-HBM3", True),
        ("A100-80GB", "NVIDIA-A100-SXM4-80GB", True),
        ("A100", "NVIDIA-A100-SXM4-80GB", False),
        ("L4", "NVIDIA-L40S", False),
        ("nvidia-tesla-t4", "Tesla-T4", True),
        ("80GB", "NVIDIA-A100-SXM4-80GB", False),
    ],
)
def test_a_name_means_a_product_or_another(name: str, product: str, is_same: bool) -> None:
    """A card would have the price of its smaller or larger sister."""
    assert (similarity(name, product) > 0) is is_same
