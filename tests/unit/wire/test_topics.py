"""Topics are what a broker's access list is written in."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from federation.wire import topics

ACL = Path(__file__).resolve().parents[3] / "deploy" / "mosquitto" / "acl"


@pytest.mark.parametrize("kind", get_args(topics.Kind))
def test_a_topic_names_its_cluster_and_kind(kind: topics.Kind) -> None:
    """A report would be counted for another cluster."""
    assert topics.parse(topics.topic("fra-1", kind)) == ("fra-1", kind)


@pytest.mark.parametrize(
    "text", ["", "isochrone/v1/fra-1", "isochrone/v2/fra-1/report", "isochrone/v1//report", "isochrone/v1/a/b/report"]
)
def test_a_foreign_topic_is_left_alone(text: str) -> None:
    """A message of another system, or another version, would be decoded as a report."""
    assert topics.parse(text) is None


@pytest.mark.parametrize("kind", get_args(topics.Kind))
def test_the_shipped_access_list_has_every_kind_in_its_direction(kind: topics.Kind) -> None:
    """With the shipped Mosquitto a kind of message would be dropped in silence, or an agent could order others."""
    verb = "write" if kind in topics.FROM_AGENTS else "read"
    assert f"pattern {verb} {topics.topic('%u', kind)}" in ACL.read_text(encoding="utf-8").splitlines()
