"""Asking for a route: by place, by H3 cell, for a country, for a session, and waiting for it to change."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import h3
import pytest

from tests.testbed.fleet import Fleet
from tests.testbed.small_world import TOKEN

AUTH = {"Authorization": f"Bearer {TOKEN}"}


def asked(fleet: Fleet, query: str, **headers: str) -> tuple[int, str, Any]:
    """(status, ETag, JSON or None)."""
    given = AUTH | {name.replace("_", "-"): value for name, value in headers.items()}
    status, found, body = fleet.request("GET", f"/v1/route{query}", headers=given)
    return status, found.get("ETag", ""), json.loads(body) if body else None


def test_a_user_is_sent_where_the_plan_serves_the_nearest_cell(fleet: Fleet) -> None:
    """An edge function would send users where the plan holds no replicas for them."""
    _, _, berlin = asked(fleet, "?model=chat-8b&lat=52.4&lon=13.0")
    assert berlin["cell"] == "Berlin"
    (row,) = [row for row in fleet.get("/v1/routes?model=chat-8b")["items"] if row["cell"] == "Berlin"]
    planned = {one["cluster"]: one["share"] for one in row["routes"]}
    assert {one["cluster"]: one["share"] for one in berlin["clusters"]} == planned
    assert berlin["ttl_s"] == 30
    assert asked(fleet, "?model=chat-8b&cell=Berlin")[2] == berlin
    assert asked(fleet, f"?model=chat-8b&h3={h3.latlng_to_cell(52.5, 13.4, 5)}")[2] == berlin


def test_residency_goes_by_the_user_and_not_by_the_nearest_cell(fleet: Fleet) -> None:
    """A German user at sea off New York would be served in the United States."""
    at_sea = "?model=chat-8b&lat=40&lon=-70"
    assert asked(fleet, at_sea)[2]["cell"] == "New York"
    german = asked(fleet, f"{at_sea}&country=DE")[2]
    assert {one["cluster"] for one in german["clusters"]} <= {"fra", "mad"}
    assert asked(fleet, f"{at_sea}&country=de")[2] == german
    by_cell = asked(fleet, "?model=chat-8b&cell=New%20York&country=DE")[2]
    assert by_cell["clusters"] == german["clusters"]


@pytest.mark.parametrize(
    ("query", "refused", "hint"),
    [
        ("?lat=52&lon=13", 400, "add model=NAME"),
        ("?model=chat-8b&lon=13", 404, "add lat=DEGREES"),
        ("?model=chat-8b&lat=40&lon=-70&country=Germany", 400, "ISO 3166-1"),
        ("?model=chat-8b&h3=-1", 400, "hexadecimal"),
        ("?model=chat-8b&h3=fffffffffffffffffffffffffffff", 400, "hexadecimal"),
        ("?model=chat-8b&h3=841f91dfffffffff", 404, "a cell's index"),
        ("?model=chat-8b&lat=91&lon=0", 400, "from -90 to 90"),
    ],
)
def test_a_question_that_cannot_be_answered_says_how_to_ask(fleet: Fleet, query: str, refused: int, hint: str) -> None:
    """A typo in a country would be a user served where the law forbids it."""
    status, _, refusal = asked(fleet, query)
    assert status == refused
    assert hint in json.dumps(refusal)


def test_a_key_always_falls_to_the_same_cluster(fleet: Fleet) -> None:
    """A session's cache would be elsewhere at every request."""
    for number in range(20):
        picks = {asked(fleet, f"?model=chat-8b&cell=Lyon&key=session-{number}")[2]["cluster"] for _ in range(3)}
        assert len(picks) == 1


def test_what_is_unchanged_is_not_sent_again(fleet: Fleet) -> None:
    """Thousands of edge functions would load the whole table every few seconds."""
    query = "?model=chat-8b&cell=Berlin"
    _, etag, _ = asked(fleet, query)
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        assert asked(fleet, query, If_None_Match=known) == (304, etag, None), known
    _, etag, _ = asked(fleet, "/snapshot")
    assert asked(fleet, "/snapshot", If_None_Match=etag) == (304, etag, None)


def test_who_has_whatever_there_is_does_not_wait(fleet: Fleet) -> None:
    """It would be held for a minute to learn nothing."""
    begun_s = time.monotonic()
    assert asked(fleet, "/snapshot?wait=20", If_None_Match="*")[0] == 304
    assert asked(fleet, "?model=chat-8b&cell=Berlin&wait=20", If_None_Match='"other", *')[0] == 304
    assert time.monotonic() - begun_s < 10.0


def _rests(fleet: Fleet) -> bool:
    """Whether shares are where the plan wants them, and what is told of them has followed."""
    shares = [one for row in fleet.get("/v1/routes")["items"] for one in row["routes"]]
    if not all(one["share"] == one["target_share"] for one in shares):
        return False
    _, etag, _ = asked(fleet, "/snapshot")
    return asked(fleet, "/snapshot?wait=0.5", If_None_Match=etag)[0] == 304


def test_who_waits_hears_of_a_change_when_it_happens(fleet: Fleet) -> None:
    """An edge function would have to ask again and again, or send users to a cluster that is gone."""
    fleet.until(lambda: _rests(fleet), "shares where the plan wants them")
    _, etag, before = asked(fleet, "/snapshot")
    begun_s = time.monotonic()
    assert asked(fleet, "/snapshot?wait=0.5", If_None_Match=etag)[0] == 304
    assert time.monotonic() - begun_s >= 0.5
    heard: list[tuple[int, str, Any]] = []
    waiter = threading.Thread(target=lambda: heard.append(asked(fleet, "/snapshot?wait=20", If_None_Match=etag)))
    waiter.start()
    try:
        fleet.request("POST", "/v1/clusters/fra/drain", b'{"reason": "a test"}')
        waiter.join(20)
        assert heard, "the change was not told"
        status, fresh, after = heard[0]
        assert (status, fresh != etag) == (200, True)
        assert after != before
    finally:
        fleet.request("POST", "/v1/clusters/fra/uncordon")
        fleet.until(fleet.is_settled, "placement as before")
