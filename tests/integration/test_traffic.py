"""The whole path of a request while the world changes: nobody who asks is turned away for it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from playwright.async_api import expect

from federation.traffic import xds
from federation.traffic.table import GatewayTable
from tests.testbed import scenarios
from tests.testbed.bad_routes import overflowing
from tests.testbed.browser import go_to, open_tab, running_browser
from tests.testbed.fixtures import require_chromium, require_envoy
from tests.testbed.lab import Lab
from tests.testbed.small_world import TOKEN

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


@pytest.mark.parametrize("home", [False, True], ids=["elsewhere", "behind-their-own-front-door"])
async def test_a_shift_goes_back_by_itself_when_the_receiver_fails_its_users(tmp_path: Path, home: bool) -> None:
    """A move to a cluster with a broken driver would go on to its end, and fail everyone."""
    seen = await scenarios.degrade(tmp_path, home=home)
    assert "ShiftHeld" in seen.said[: seen.said.index("ShiftBack")], "a busy machine may hold it more than once"
    assert max(seen.shares) <= 0.65, f"no more than one step between failing and being held: {seen.shares}"
    assert seen.shares[-1] == 0.0, seen.shares


async def command(lab: Lab, *arguments: str) -> str:
    """What the command line prints."""
    assert lab.controller is not None
    env = {**os.environ, "ISOCHRONE_SERVER": lab.controller.url, "ISOCHRONE_TOKEN": TOKEN}
    env["ISOCHRONE_CONFIG"] = str(lab.directory / "config.json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "federation.cli", *arguments, env=env, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


def step_slower(lab: Lab) -> None:
    """Change the policy in what every gateway is told."""
    path = lab.policies / "chat.yaml"
    model, policy = yaml.safe_load_all(path.read_text())
    traffic = policy["spec"].setdefault("traffic", {})
    traffic["stepSeconds"] = traffic.get("stepSeconds", 15) + 1
    path.write_text(yaml.safe_dump_all([model, policy]))


async def test_what_a_gateway_refuses_is_seen_by_whoever_is_on_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A region would go on with yesterday's routes under a green map."""
    require_chromium()
    true_snapshot = xds.snapshot
    lab = Lab(tmp_path, rps=scenarios.RPS)

    def spoilt(table: GatewayTable) -> xds.Snapshot:
        made = true_snapshot(table)
        return overflowing(made) if table.cluster == "fra" else made

    async with lab.running(), scenarios.load(lab) as users, running_browser() as browser:
        assert lab.controller is not None
        page = (await open_tab(browser, lab.controller.sign_in_url)).page
        fra = page.locator("[data-cluster=fra]")
        await expect(fra).to_have_class(re.compile(r"^cluster ok\b"))
        assert "refused new routes" not in await command(lab, "describe", "cluster", "fra")
        monkeypatch.setattr(xds, "snapshot", spoilt)
        step_slower(lab)  # so that its table is another one
        await lab.until(lambda: any(one.refused for one in lab.hub.gateways.values()), "refusal")
        spoilt_s = asyncio.get_running_loop().time()
        await go_to(page, "cluster/fra")
        await expect(page.locator("aside.side")).to_contain_text("refused new routes")
        await expect(fra).to_have_class(re.compile(r"^cluster degraded\b"))
        listed = await command(lab, "get", "gateways", "-o", "wide")
        assert "sum of weights" in listed.lower()
        assert "refused new routes" in await command(lab, "describe", "cluster", "fra")
        assert not users.failed(spoilt_s), "the last good one serves"
        monkeypatch.setattr(xds, "snapshot", true_snapshot)
        step_slower(lab)
        await expect(fra).to_have_class(re.compile(r"^cluster ok\b"))
        assert not [one for one in lab.hub.gateways.values() if one.refused]
        assert not users.failed()
