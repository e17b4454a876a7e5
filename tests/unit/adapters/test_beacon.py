"""The beacon takes what it should from whom it should, and keeps nobody's address."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from federation.adapters import beacon
from federation.adapters.beacon import Beacon, Collected, Posted, RoundTrip
from federation.control.measuring import Target

ORIGIN = "https://chat.example"
OURS = {"Origin": ORIGIN}


class Served:
    """A beacon, and a client of it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.beacon = Beacon(
            origins=(ORIGIN,),
            script=b"// script",
            targets=lambda cell, place: (cell or "paris", (Target("fra", "https://fra.example/x"),)),
            now_s=lambda: self.now_s,
            is_proxied=True,
        )
        self.server = TestServer(self.beacon.application())

    async def post(self, body: bytes, *, headers: dict[str, str] = OURS) -> tuple[int, str]:
        """Status and text of a beacon."""
        async with (
            aiohttp.ClientSession() as client,
            client.post(self.server.make_url("/v1/beacon"), data=body, headers=headers) as answer,
        ):
            return answer.status, await answer.text()


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    """Started."""
    made = Served()
    await made.server.start_server()
    yield made
    await made.server.close()


GOOD = b'{"cell": "paris", "rtts": [{"cluster": "fra", "rtt_ms": 21.5}]}'


async def test_a_page_of_ours_tells_and_no_other(served: Served) -> None:
    """Any page in the web could tell us where users are."""
    assert (await served.post(GOOD))[0] == 204
    for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert (await served.post(GOOD, headers=headers))[0] == 403
    assert [tuple(one) for one in served.beacon.collected.take()] == [("paris", "fra", (21.5,), 1)]
    async with aiohttp.ClientSession() as client:
        async with client.get(served.server.make_url("/v1/beacon?lat=48.9&lon=2.4"), headers=OURS) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert await answer.json() == {
                "cell": "paris",
                "measure": [{"cluster": "fra", "url": "https://fra.example/x"}],
            }
        async with client.get(served.server.make_url("/v1/beacon?lat=91&lon=x"), headers=OURS) as answer:
            assert answer.status == 400
        async with client.get(served.server.make_url("/v1/overview"), headers=OURS) as answer:
            assert answer.status == 404, "this door leads to nothing else"
        async with client.get(served.server.make_url("/beacon.js")) as answer:
            assert (answer.status, await answer.text()) == (200, "// script")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"cell": "paris", "rtts": []}',
        b'{"cell": "", "rtts": [{"cluster": "fra", "rtt_ms": 1}]}',
        b'{"cell": "paris", "rtts": [{"cluster": "fra", "rtt_ms": -1}]}',
        b'{"cell": "paris", "rtts": [{"cluster": "fra", "rtt_ms": 1e999}]}',
        b'{"cell": "paris", "rtts": [{"cluster": "fra", "rtt_ms": NaN}]}',
        b'{"cell": "paris", "rtts": [{"cluster": "fra", "rtt_ms": "1"}]}',
        b'{"cell": "paris", "address": "192.0.2.1", "rtts": [{"cluster": "fra", "rtt_ms": 1}]}',
        b'{"cell": "paris", "rtts": [' + b'{"cluster": "fra", "rtt_ms": 1},' * 8 + b'{"cluster": "f", "rtt_ms": 1}]}',
        b'{"cell": "' + b"x" * 101 + b'", "rtts": [{"cluster": "fra", "rtt_ms": 1}]}',
        b"[" * 4000,
    ],
)
async def test_a_hostile_body_is_refused(served: Served, body: bytes) -> None:
    """One body could stop the beacon, or put into the world what cannot be."""
    assert (await served.post(body))[0] == 400
    assert served.beacon.collected.take() == ()


async def test_a_long_body_is_not_read(served: Served) -> None:
    """A few pages could fill the memory."""
    assert (await served.post(GOOD + b" " * 5000))[0] == 413


async def test_each_address_may_so_often(served: Served) -> None:
    """One browser in a loop would be the crowd."""
    told = [(await served.post(GOOD, headers=OURS | {"X-Forwarded-For": "1.1.1.1, 9.9.9.9"}))[0] for _ in range(9)]
    assert told == [204] * 6 + [429] * 3
    assert (await served.post(GOOD, headers=OURS | {"X-Forwarded-For": "9.9.9.9, 8.8.8.8"}))[0] == 204
    assert [one.senders for one in served.beacon.collected.take()] == [2], "the address that our proxy added counts"


def test_nothing_of_a_sender_outlives_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who measured from where would be on record."""
    collected = Collected()
    posted = Posted(cell="paris", rtts=[RoundTrip("fra", 20.0)])
    first = collected.sender("192.0.2.1")
    collected.add(first, posted)
    assert "192.0.2.1" not in repr(vars(collected))
    assert first == collected.sender("192.0.2.1")
    assert collected.take()[0].rtt_ms == (20.0,)
    assert first != collected.sender("192.0.2.1"), "the key is another one"
    monkeypatch.setattr(beacon, "MOST_COLLECTED", 5)
    for number in range(100):
        collected.add(collected.sender(str(number)), Posted(cell=f"cell-{number}", rtts=[RoundTrip("fra", 20.0)]))
        collected.add(collected.sender(str(number)), posted)
    assert len(collected.take()) <= 5
    assert collected.dropped > 0
