"""What a Prometheus may answer, and what is told when it is no answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from federation.adapters import prometheus
from federation.adapters.prometheus import PrometheusError, ask, settings_of
from federation.state.scraped import Prometheus, Query

GOOD = '{"status":"success","data":{"resultType":"vector","result":[{"metric":{"cluster":"fra"},"value":[1.5,"2.5"]}]}}'
BAD = {
    "no JSON": (200, "<html>", "JSON is malformed"),
    "refused": (401, '{"status":"error","error":"unauthorized"}', "unauthorized"),
    "bad query": (400, '{"status":"error","error":"parse error"}', "parse error"),
    "a matrix": (200, '{"status":"success","data":{"resultType":"matrix","result":[]}}', "no vector"),
    "no number": (200, GOOD.replace("2.5", "two"), "could not convert"),
    "elsewhere": (302, "", "302"),
}


async def answered(status: int, text: str) -> list[object]:
    """What `ask` gives of a server that answers so."""

    async def answer(request: web.Request) -> web.Response:
        assert (await request.post())["query"] == "up"
        return web.Response(status=status, text=text, headers={"location": "http://127.0.0.1:1/"})

    app = web.Application()
    app.router.add_post("/api/v1/query", answer)
    async with TestServer(app) as server:
        return [row for _, rows in await ask(settings(str(server.make_url("/"))), (Query("", "up"),)) for row in rows]


def settings(url: str) -> Prometheus:
    return Prometheus(url=url)


async def test_a_vector_is_rows() -> None:
    """Nothing would be known."""
    assert await answered(200, GOOD) == [({"cluster": "fra"}, 2.5)]


@pytest.mark.parametrize("kind", BAD)
async def test_every_other_answer_is_an_error_with_its_cause(kind: str) -> None:
    """A login page would be a fleet without users."""
    status, text, cause = BAD[kind]
    with pytest.raises(PrometheusError, match=cause):
        await answered(status, text)


async def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One query over everything would take the controller's memory."""
    monkeypatch.setattr(prometheus, "MAX_BYTES", 50)
    with pytest.raises(PrometheusError, match="longer than"):
        await answered(200, GOOD)


async def test_a_server_that_is_away_is_told_by_its_name() -> None:
    """An operator would look for the wrong machine."""
    with pytest.raises(PrometheusError, match=r"http://127\.0\.0\.1:1"):
        await ask(settings("http://127.0.0.1:1"), (Query("", "up"),))


@pytest.mark.parametrize(
    "text", ["url: http://user:pw@host", "uri: http://host", "[]", "url: http://h\nwindowSeconds: 1"]
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    """A misspelt label would be found out by a fleet without users."""
    path = tmp_path / "prometheus.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"prometheus\.yaml:\d+:\d+: .+\(expected "):
        settings_of(path)
