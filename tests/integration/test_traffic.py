"""The whole path of a request while the world changes: nobody who asks is turned away for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testbed import scenarios
from tests.testbed.fixtures import require_envoy

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def _gateways() -> None:
    require_envoy()


async def test_a_region_is_drained_without_one_failed_request(tmp_path: Path) -> None:
    """Every planned maintenance would be an incident; shares would be a wish."""
    seen = await scenarios.drain(tmp_path)
    assert seen.requests > 1500
    assert seen.failed == 0, seen.failures
    assert len(seen.steps) >= 8
    for step in seen.steps:
        # Half a request more or less than the share is no difference at all.
        assert step.off() <= 0.02 + 1.0 / step.requests, step
    assert seen.dns_failed > 0, "switching names at once, beside it, loses requests: else this proves nothing"


async def test_the_loss_of_a_region_costs_its_users_nothing_they_notice(tmp_path: Path) -> None:
    """A region that burns would take its users' requests with it until somebody woke up."""
    seen = await scenarios.lose(tmp_path)
    assert seen.sent_there > 0, "it served before"
    assert seen.failed <= 0.001 * seen.per_minute
    assert seen.detected_s is not None
    assert seen.last_sent_s <= seen.detected_s + 1.0


async def test_gateways_alone_take_users_off_a_lost_region(tmp_path: Path) -> None:
    """When the region that is lost is the controller's too, nobody would be served."""
    seen = await scenarios.lose(tmp_path, controller=False)
    assert seen.failed <= 0.001 * seen.per_minute
    assert seen.last_sent_s < 6.0


async def test_a_controller_that_dies_in_mid_shift_is_not_missed(tmp_path: Path) -> None:
    """Requests would fail while it is away, or all move at once when it is back."""
    seen = await scenarios.away(tmp_path, away_s=8.0)
    assert seen.killed >= 2
    assert seen.failed == 0, seen.failures
    assert seen.jump <= seen.step + 1e-6, seen.shares
    assert "fra" not in seen.shares[-1], f"the shift goes on to its end: {seen.shares}"


async def test_a_shift_goes_back_by_itself_when_the_receiver_fails_its_users(tmp_path: Path) -> None:
    """A move to a cluster with a broken driver would go on to its end, and fail everyone."""
    seen = await scenarios.degrade(tmp_path)
    assert "ShiftHeld" in seen.said[: seen.said.index("ShiftBack")], "a busy machine may hold it more than once"
    assert max(seen.shares) <= 0.65, f"no more than one step between failing and being held: {seen.shares}"
    assert seen.shares[-1] == 0.0, seen.shares
