"""What a gateway accepted and refused, as operators see it."""

from __future__ import annotations

from federation.traffic.status import GatewayStatus
from federation.traffic.stream import Verdict
from federation.traffic.xds import CDS, RDS

STATUS = GatewayStatus(node="fra-0", cluster="fra", connected=True, since_s=0.0)


def verdict(type_url: str, version: str, error: str = "") -> Verdict:
    return Verdict(type_url=type_url, version=version, error=error)


def test_a_refusal_leaves_the_last_good_version_in_force() -> None:
    """`get gateways` would claim that a refused configuration serves."""
    status = STATUS.after(verdict(RDS, "1")).after(verdict(RDS, "2", "no such cluster"))
    assert status.accepted == {"routes": "1"}
    assert status.refused == {"routes": "no such cluster"}


def test_an_acceptance_ends_the_refusal_of_its_kind_alone() -> None:
    """A gateway would be shown as refusing for ever, or a refusal of clusters would vanish with accepted routes."""
    status = STATUS.after(verdict(CDS, "1", "bad")).after(verdict(RDS, "1", "bad")).after(verdict(RDS, "2"))
    assert status.refused == {"clusters": "bad"}
    assert status.accepted == {"routes": "2"}


def test_what_is_as_it_was_is_the_same_object() -> None:
    """Every heartbeat of a gateway would redraw the map."""
    assert STATUS.refusing_only([CDS]) is STATUS
