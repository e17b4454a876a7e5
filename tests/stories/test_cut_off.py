"""The controller is the one that is cut off, is deaf, or is not alone: users stay where they are served."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.adapters.embedded_broker import EmbeddedBroker
from federation.app import Controller
from federation.settings import Listen, Settings
from federation.wire import topics
from tests.testbed.fleet import INTERVAL_S, SPEED, Fleet, simulated_agent
from tests.testbed.small_world import MODEL, POLICY, USERS

ASKED_RPS = sum(user[3] for user in USERS.values())


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of its own, settled."""
    with Fleet(tmp_path) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(lambda: fleet.get("/v1/overview")["demand_rps"] == ASKED_RPS, "demand of all users")
        fleet.until(fleet.is_settled, "placement")
        fleet.until(lambda: answers(fleet).keys() == USERS.keys(), "routes of all users")
        fleet.run(asyncio.sleep(1.0))  # the last replica that became ready is sent its part at the next step
        fleet.until(lambda: have_arrived(fleet), "shares that no longer move")
        yield fleet


def have_arrived(fleet: Fleet) -> bool:
    """Whether every share in force is where it goes."""
    return fleet.do(lambda: all(one.now == one.target for one in fleet.controller.hub.routes.routes))


def answers(fleet: Fleet) -> dict[str, Any]:
    """Cell -> who serves it, as the route API tells its users."""
    found = {}
    for cell in USERS:
        status, _, body = fleet.request("GET", f"/v1/route?model=chat-8b&cell={cell.replace(' ', '%20')}")
        if status == 200:
            found[cell] = json.loads(body)["clusters"]
    return found


def events(fleet: Fleet, reason: str) -> list[dict[str, Any]]:
    return [one for one in fleet.get("/v1/events?limit=500")["items"] if one["reason"] == reason]


def test_when_all_connections_break_users_stay_where_they_are_served(fleet: Fleet) -> None:
    """An expired certificate of the agents would send everybody's requests nowhere, while every cluster serves."""
    before = answers(fleet)
    cut_s = time.monotonic()
    for agent in fleet.agents.values():
        fleet.do(agent.cut)
    fleet.until(lambda: fleet.get("/v1/overview")["brake"], "brake", timeout_s=5.0)
    assert answers(fleet) == before, "it is on before anybody is moved"
    tolerations = 5
    while (time.monotonic() - cut_s) * SPEED < tolerations * POLICY["spec"]["failover"]["tolerationSeconds"]:
        assert answers(fleet) == before
        time.sleep(0.1)
    assert "fra" in fleet.get("/v1/overview")["brake"], "it says what it waits for"
    for agent in fleet.agents.values():
        fleet.do(agent.heal)
    fleet.until(lambda: not fleet.get("/v1/overview")["brake"], "end of the brake")
    fleet.until(fleet.is_settled, "order")
    assert answers(fleet) == before


def test_a_controller_that_is_connected_and_hears_nothing_is_not_ready_and_mends_itself(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take every cluster for dead, for good, and say that it is ready."""
    before = answers(fleet)
    assert fleet.request("GET", "/readyz")[0] == 200
    monkeypatch.setattr(fleet.controller.link, "_heartbeat_s", 0.5)
    broker = fleet.controller.embedded
    assert broker is not None
    assert broker._broker is not None
    subscriptions = broker._broker._subscriptions
    time.sleep(6.0)  # of the heartbeat's interval that was in force
    fleet.do(lambda: [subscriptions.pop(topics.subscription(kind)) for kind in topics.FROM_AGENTS])
    known = len(events(fleet, "BrokerFound"))
    fleet.until(lambda: len(events(fleet, "BrokerFound")) > known, "new connection", timeout_s=10.0)
    fleet.until(lambda: fleet.request("GET", "/readyz")[0] == 200, "readiness")
    fleet.until(fleet.is_settled, "order")
    fleet.until(lambda: have_arrived(fleet), "shares that no longer move")
    assert answers(fleet) == before


def _ask(controller: Controller, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    asked = urllib.request.Request(controller.url + path, data=body, method=method)
    asked.add_header("Authorization", f"Bearer {controller.token}")
    try:
        with urllib.request.urlopen(asked, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


async def test_of_two_controllers_with_databases_of_their_own_one_is_quiet(tmp_path: Path) -> None:
    """They would throw each other off the broker, and order every cluster to and fro."""
    broker = EmbeddedBroker()
    await broker.start()
    url = f"mqtt://{broker.address.host}:{broker.address.port}"
    policies = tmp_path / "policies"
    policies.mkdir()

    async def started(name: str) -> Controller:
        settings = Settings(policies_dir=policies, data_dir=tmp_path / name, listen=Listen(port=0), broker_url=url)
        controller = await Controller.start(settings)
        ending.push_async_callback(controller.stop)
        return controller

    async with AsyncExitStack() as ending:
        ending.push_async_callback(broker.stop)
        first = await started("first")
        async with asyncio.timeout(20):
            while not first.link.is_connected:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(5.5)  # so that it is the elder by more than the two can be mistaken about
        second = await started("second")
        async with asyncio.timeout(20):
            while not (first.hub.rivals and second.hub.rivals):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert first.hub.outvoted() == ""
        assert first.hub.controller in second.hub.outvoted()
        assert "--take-over" in second.hub.outvoted()
        assert first.link.is_connected
        assert second.link.is_connected
        ask = await asyncio.to_thread(lambda: [_ask(one, "GET", "/readyz") for one in (first, second)])
        assert [status for status, _ in ask] == [200, 503], "users are sent to the one that leads"
        status, body = await asyncio.to_thread(_ask, second, "GET", "/v1/route?model=chat-8b&cell=Berlin")
        assert (status, json.loads(body)["code"]) == (503, "NotPlanned"), "not known is not nobody"
        document = yaml.safe_dump(MODEL).encode()
        status, refused = await asyncio.to_thread(_ask, second, "POST", "/v1/policies?name=chat.yaml", document)
        assert (status, json.loads(refused)["code"]) == (409, "NotLeading"), "what it took would never be in force"
        assert first.hub.controller in json.loads(refused)["message"]
        told = [event.reason for event in second.hub.events]
        assert "OtherController" in told


def test_two_agents_under_one_name_are_told_apart(fleet: Fleet) -> None:
    """Forty take-overs in half a minute, and nothing says why."""
    address = fleet.agents["fra"].settings.address
    second, backend = simulated_agent("fra", [], address=address, clock=fleet.clock, interval_s=INTERVAL_S)
    second._boot_id = "second-agent-0002"
    task = fleet.do(lambda: fleet._tasks.start("second", second.run()))
    told = fleet.until(lambda: events(fleet, "NameTaken"), "word of the second")
    assert "second-agent-0002" in told[0]["message"]
    assert fleet.agents["fra"]._boot_id in told[0]["message"]
    time.sleep(3.0)
    assert len(events(fleet, "NameTaken")) == 1
    assert fleet.do(backend.ready) == {}, "the second carries out nothing"
    assert "NameTaken" in [one["type"] for one in fleet.get("/v1/clusters/fra")["conditions"]]
    fleet.do(task.cancel)
    fleet.until(lambda: not fleet.get("/v1/clusters/fra")["conditions"], "peace")
    fleet.until(fleet.is_settled, "order")
