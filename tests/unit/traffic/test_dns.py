"""Where subnets are: a file that is wrong is refused with its line."""

from __future__ import annotations

import ipaddress

import pytest

from federation.traffic.dns import parse_places

GOOD = "# office\n198.51.100.0/24,DE,52.5,13.4\n198.51.100.128/25, FR, 45.8, 4.8 # the annex\n"


def test_the_longest_prefix_decides() -> None:
    """Users of a subnet would be answered for the country of the network around it."""
    places = parse_places(GOOD)
    for subnet, country in (("198.51.100.0/26", "DE"), ("198.51.100.200/32", "FR")):
        found = places.of(ipaddress.ip_network(subnet))
        assert found is not None
        assert found[0].country == country


@pytest.mark.parametrize(
    "line",
    [
        "203.0.113.0/24,Germany,52.5,13.4",
        "203.0.113.0/24,de,52.5,13.4",
        "203.0.113.0/24,DE,95,13.4",
        "203.0.113.0/24,DE,nan,13.4",
        "203.0.113.0/24,DE,52.5,inf",
        "203.0.113.0/33,DE,52.5,13.4",
        "203.0.113.0/24,DE,52.5",
    ],
)
def test_a_line_that_cannot_be_is_named(line: str) -> None:
    """Residency goes by the country: users of `Germany` would be bound by no rule."""
    with pytest.raises(ValueError, match="line 4: '203"):
        parse_places(GOOD + line)
