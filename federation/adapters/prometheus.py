"""Asks a Prometheus over HTTP: instant queries, bounded in time, size and series."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import msgspec

from federation.state.scraped import Prometheus, Query, Row
from federation.yamlkit.explain import explain, problem_at, refusals
from federation.yamlkit.source import START, YamlProblem, read

TIMEOUT_S = 20.0
MAX_BYTES = 32 * 1024 * 1024
MOST_SERIES = 100_000
AT_ONCE = 4


class PrometheusError(Exception):
    """It could not be asked, or its answer is none. The message says why."""


class _Result(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct, rename="camel"):
    result_type: str = ""
    result: list[_Result] = []


class _Answer(msgspec.Struct, rename="camel"):
    status: str = ""
    error: str = ""
    data: _Data = msgspec.field(default_factory=_Data)


def settings_of(path: Path) -> Prometheus:
    """The settings in a YAML file. Raises: ValueError, with each fault as file:line:column and a hint."""
    try:
        nodes = read(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except YamlProblem as error:
        raise ValueError(problem_at(str(path), error.mark, error.message, error.expected, error.hint).text()) from error
    if len(nodes) != 1 or nodes[0].items is None:
        raise ValueError(problem_at(str(path), START, "no settings", "one mapping, with a field url").text())
    try:
        return msgspec.convert(nodes[0].plain(), Prometheus, strict=True)
    except msgspec.ValidationError as error:
        found = refusals(nodes[0], Prometheus) or (str(error),)
        faults = (explain(str(path), nodes[0], Prometheus, text).text() for text in found)
        raise ValueError("\n".join(faults)) from error


async def ask(settings: Prometheus, queries: tuple[Query, ...]) -> list[tuple[Query, list[Row]]]:
    """The answers, in the order of the queries. Raises: PrometheusError."""
    headers = {"User-Agent": "isochrone-controller"}
    try:
        if settings.token_file:
            token = await asyncio.to_thread(Path(settings.token_file).read_text, encoding="utf-8")
            headers["Authorization"] = f"Bearer {token.strip()}"
        limit = asyncio.Semaphore(AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            rows = await asyncio.gather(*(_rows(session, limit, settings.url, one.expression) for one in queries))
    except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError) as error:
        raise PrometheusError(f"{settings.url}: {error or type(error).__name__}") from error
    return list(zip(queries, rows, strict=True))


async def _rows(session: aiohttp.ClientSession, limit: asyncio.Semaphore, url: str, expression: str) -> list[Row]:
    where = f"{url.rstrip('/')}/api/v1/query"
    async with limit, session.post(where, data={"query": expression}, allow_redirects=False) as reply:
        payload = bytearray()
        async for chunk in reply.content.iter_chunked(256 * 1024):
            payload += chunk
            if len(payload) > MAX_BYTES:
                raise PrometheusError(f"{where}: an answer is longer than {MAX_BYTES // 1024**2} MiB")
        status = reply.status
    try:
        answer = await asyncio.to_thread(msgspec.json.decode, bytes(payload), type=_Answer)
    except msgspec.MsgspecError as error:
        raise PrometheusError(f"{where} answered {status}: {error}") from error
    if answer.status != "success" or answer.data.result_type != "vector":
        raise PrometheusError(f"{where} answered {status} to {expression!r}: {answer.error or 'no vector'}")
    if len(answer.data.result) > MOST_SERIES:
        raise PrometheusError(f"{where}: more than {MOST_SERIES} series for {expression!r}")
    try:
        return [(one.metric, float(one.value[1])) for one in answer.data.result]
    except ValueError as error:
        raise PrometheusError(f"{where}: {error}") from error
