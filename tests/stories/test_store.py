"""What people and probes see when the disk is full, and when another controller has taken the database."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.adapters.store import Store
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY
from tests.unit.adapters.test_store_full import full


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def served(directory: Path) -> Iterator[Fleet]:
    """A fleet that serves, and whose database is known."""
    with Fleet(directory) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
        yield fleet


def ask(fleet: Fleet, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    status, _, answer = fleet.request(method, path, None if body is None else json.dumps(body).encode())
    return status, json.loads(answer) if answer else None


def reasons(fleet: Fleet) -> list[str]:
    return [one["reason"] for one in fleet.get("/v1/events")["items"] if one["reason"].startswith("Store")]


def test_orders_on_a_full_disk_are_refused_with_the_way_out(served: Fleet) -> None:
    """A drain would answer with a bare 500, and nobody would know whether it holds."""
    other, third = ({**MODEL, "metadata": {"name": name}} for name in ("other", "third"))
    assert served.apply("other.yaml", other)[0] == 200
    with full():
        answers = [
            ask(served, "POST", "/v1/clusters/fra/drain", {"reason": "smoke"}),
            ask(served, "POST", "/v1/clusters/fra/cordon", {"reason": "smoke"}),
            ask(served, "POST", "/v1/clusters/fra/uncordon"),
            ask(served, "DELETE", "/v1/policies/other.yaml"),
            served.apply("third.yaml", third),
        ]
    for status, answer in answers:
        assert status == 507, answer
        assert answer["code"] == "InsufficientStorage"
        assert answer["hint"].startswith("free disk space, then try again; ")
    assert reasons(served) == ["StoreFull"]
    view = served.get("/v1/clusters/fra")
    assert not view.get("cordoned") and not view.get("drain"), view
    assert served.request("GET", "/readyz")[0] == 200, "it still serves"
    assert served.apply("third.yaml", third)[0] == 200
    assert ask(served, "DELETE", "/v1/policies/third.yaml")[0] == 200
    assert reasons(served) == ["StoreFull", "StoreBack"]


def test_a_controller_whose_database_another_one_has_taken_says_so_and_is_quiet(served: Fleet, directory: Path) -> None:
    """It would take policies and drains that the leader never sees, and answer from routes that are not in force."""

    async def another() -> int:
        store = Store(directory / "data" / "isochrone.sqlite")
        epoch = (await store.open()).epoch
        await store.close()
        return epoch

    epoch = asyncio.run(another())
    status, answer = ask(served, "POST", "/v1/clusters/fra/drain", {"reason": "smoke"})
    assert status == 409
    assert f"another controller, epoch {epoch}, uses this database; this one has epoch" in answer["message"]
    assert answer["hint"] == "ask that controller, and stop this one"
    assert served.apply("chat.yaml", {**MODEL, "spec": {**MODEL["spec"], "warmupSeconds": 9}}, POLICY)[0] == 409
    status, _, body = served.request("GET", "/readyz")
    assert status == 503
    assert b"another controller" in body
    events = [one["reason"] for one in served.get("/v1/events")["items"]]
    assert events.count("Superseded") == 1
    assert "another controller" in served.do(served.controller.hub.outvoted)


def test_a_flipped_bit_takes_no_model_from_its_users(tmp_path: Path) -> None:
    """A model whose policy is damaged would be without one after a restart, and its users get 404."""
    with Fleet(tmp_path / "before") as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
    fleet = Fleet(tmp_path / "after")
    shutil.copytree(tmp_path / "before" / "data", tmp_path / "after" / "data")
    (database,) = (tmp_path / "after" / "data").glob("*.sqlite")
    content = database.read_bytes()
    assert content.count(b"matchNames") >= 1
    database.write_bytes(content.replace(b"matchNames", b"matchNamer"))
    with fleet:
        assert "StoreDamaged" in reasons(fleet)
        fleet.until(fleet.is_settled, "placement")
        fleet.until(lambda: ask(fleet, "GET", "/v1/route?model=chat-8b&cell=Berlin")[0] == 200, "routes")
