"""What leaves an agent can be read, whatever its cluster says: rows are left out and told, never the report."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import main, outgoing, probe
from agents.demand import DemandFile
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.builders import L4, a_report, some_demand

GOOD = """
- model: chat-8b
  cell: {name: Berlin, country: DE, lat: 52.5, lon: 13.4}
  requestsPerSecond: 30
"""
BAD = {
    "hub-name": GOOD.replace("chat-8b", "meta-llama/Llama-3.1-8B-Instruct"),
    "nan": GOOD.replace("30", ".nan"),
    "infinite": GOOD.replace("30", ".inf"),
    "negative": GOOD.replace("30", "-0.1"),
    "country": GOOD.replace("DE", "Germany"),
    "latitude": GOOD.replace("52.5", "152.5"),
    "no-cell": "- {model: chat-8b, requestsPerSecond: 3}\n",
    "no-count": GOOD.replace("requestsPerSecond: 30", ""),
}


def read(payload: bytes) -> messages.Report:
    report = messages.decode(payload)
    assert isinstance(report, messages.Report)
    return report


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_is_left_out_and_told(tmp_path: Path, bad: str) -> None:
    """The controller would refuse every report, the cluster would be lost, and its replicas be replaced."""
    file = tmp_path / "demand.yaml"
    file.write_text(BAD[bad].rstrip() + GOOD)
    report = read(outgoing.fit(a_report("fra", demand=DemandFile(file).read()))[1])
    assert [(one.model, one.cell.name, one.requests_per_second) for one in report.demand] == [("chat-8b", "Berlin", 30)]
    (told,) = report.conditions
    assert (told.type, told.object) == ("ReportRowLeftOut", "report/demand")
    assert "1 rows" in told.message


def test_what_can_be_read_leaves_as_it_is() -> None:
    """Mending would change what is right."""
    report = a_report("fra", demand=(some_demand("chat", "Berlin", 10),))
    assert outgoing.fit(report) == (report, messages.encode(report))


def test_as_many_counts_as_a_report_takes_fit() -> None:
    """2,500 rows were 307 kB, the reader took 262 kB, and the cluster was lost."""
    rows = tuple(some_demand("meta-chat-8b-instruct", f"Some Long City Name {n}", 12.345678 + n) for n in range(5_000))
    report, payload = outgoing.fit(a_report("fra", demand=rows))
    assert len(report.demand) == 5_000 and report.conditions == ()
    assert len(payload) < messages.MAX_MESSAGE_BYTES


def test_of_too_many_counts_the_largest_are_sent() -> None:
    """The users of a whole city would be cut for a village."""
    rows = [some_demand("chat", f"cell-{n}", float(n)) for n in range(6_000)]
    random.Random(1).shuffle(rows)
    report, _ = outgoing.fit(a_report("fra", demand=tuple(rows)))
    assert {one.requests_per_second for one in report.demand} == {float(n) for n in range(1_000, 6_000)}
    assert [one.type for one in report.conditions] == ["ReportCut"]


def test_a_report_that_is_too_large_keeps_what_serves() -> None:
    """Replicas would look gone because many nodes are not well."""
    node = messages.NodeReport(name="n" * 253, pool=L4, devices=1, ready=False, reason="r" * 300)
    nodes = tuple(msgspec.structs.replace(node, name=f"{at:05d}" + "n" * 240) for at in range(5_000))
    replicas = tuple(messages.ReplicaReport(model=f"m{n}", pool=L4, desired=1, ready=1) for n in range(500))
    rows = tuple(some_demand("chat", f"cell-{n}", 1.0 + n) for n in range(4_000))
    report, payload = outgoing.fit(a_report("fra", nodes=nodes, replicas=replicas, demand=rows))
    assert len(payload) <= messages.MAX_MESSAGE_BYTES
    assert len(report.replicas) == 500 and len(report.demand) == 4_000 and 0 < len(report.nodes) < 5_000
    assert [(one.type, one.object) for one in report.conditions] == [("ReportCut", "report/nodes")]


_TEXT = st.text(max_size=400)
_NUMBER = st.floats() | st.integers(-5, 10**7)
_COUNT = st.integers(-5, 2**70)
_KEY = st.builds(messages.PoolKey, product=_TEXT, mig_profile=_TEXT)


def _many(row: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(row, max_size=3).map(tuple)


_ROOM = st.builds(messages.NodeRoom, nodes=_COUNT, devices=_COUNT, cpu_millis=_COUNT, memory_mib=_COUNT)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "pools": _many(
        st.builds(
            messages.PoolReport,
            key=_KEY,
            vram_gib=_NUMBER,
            allocatable=_COUNT,
            free=_COUNT,
            usd_per_device_hour=st.none() | _NUMBER,
            room=st.none() | _many(_ROOM),
            zones=_many(_TEXT),
            region=_TEXT,
        )
    ),
    "nodes": _many(
        st.builds(messages.NodeReport, name=_TEXT, pool=_KEY, devices=_COUNT, ready=st.booleans(), reason=_TEXT)
    ),
    "replicas": _many(
        st.builds(
            messages.ReplicaReport,
            model=_TEXT,
            pool=_KEY,
            desired=_COUNT,
            ready=_COUNT,
            scheduled=st.none() | _COUNT,
            reason=_TEXT,
        )
    ),
    "growth": _many(
        st.builds(
            messages.Growth,
            group=_TEXT,
            source=st.just("karpenter"),
            pool=st.none() | _KEY,
            nodes=st.none() | _COUNT,
            provisioning_s=st.none() | _NUMBER,
        )
    ),
    "endpoints": _many(st.builds(messages.ReplicaEndpoint, model=_TEXT, address=_TEXT, port=_COUNT)),
    "served": _many(st.builds(messages.ServedSample, model=_TEXT, requests_per_second=_NUMBER, error_share=_NUMBER)),
    "peers": _many(st.builds(messages.PeerRtt, cluster=_TEXT, rtt_ms_p50=_NUMBER, rtt_ms_p95=_NUMBER, samples=_COUNT)),
    "conditions": st.lists(st.builds(messages.Condition, type=_TEXT, object=_TEXT, message=_TEXT), max_size=90).map(
        tuple
    ),
    "kubernetes_version": _TEXT,
    "probe": _TEXT,
}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.fixed_dictionaries({}, optional=_FIELDS))
def test_whatever_a_cluster_says_its_report_can_be_read(fields: dict[str, Any]) -> None:
    """One name that is too long would make a whole cluster look lost."""
    report, payload = outgoing.fit(a_report("fra", **fields))
    assert read(payload) == report


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("fra.example:9480", ("fra.example", 9480)),
        ("192.0.2.7:9480", ("192.0.2.7", 9480)),
        ("[::1]:9000", ("::1", 9000)),
        ("0.0.0.0:9480", ("", 0)),
        ("[::]:9480", ("", 0)),
        ("fra.example", ("", 0)),
        ("fra.example:99999", ("", 0)),
        ("fra.example:0", ("", 0)),
        ("probe_fra.example.:9480", ("probe_fra.example.", 9480)),
        ("[fe80::1%eth0]:9480", ("fe80::1%eth0", 9480)),
        ("[::ffff:192.0.2.7]:9480", ("::ffff:192.0.2.7", 9480)),
        ("[::ffff:0.0.0.0]:9480", ("", 0)),
        ("0:9480", ("", 0)),
        ("0.0:9480", ("", 0)),
        ("http://fra.example:9480", ("", 0)),
        ("user@fra.example:9480", ("", 0)),
        ("fra.example :9480", ("", 0)),
        ("[::1:9480", ("", 0)),
        ("fe80::1", ("", 0)),
        ("224.0.0.1:9480", ("", 0)),
    ],
)
def test_an_address_to_measure_is_read(told: str, expected: tuple[str, int]) -> None:
    """A peer in brackets would never be measured; one at 0.0.0.0 is the agent itself."""
    assert probe.address_of(told) == expected


@pytest.mark.parametrize("text", ["http://fra.example:9480", "fra.example", "0:9480", "fra.example:9480 "])
def test_an_address_where_nobody_can_be_measured_is_refused_at_the_start(text: str) -> None:
    """The cluster would be measured by nobody, and no word would say why."""
    found = CliRunner().invoke(
        main.kubernetes, ["--cluster", "fra", "--broker", "mqtt://localhost", "--probe-advertise", text]
    )
    assert found.exit_code == 2
    assert "--probe-advertise" in found.output


@pytest.mark.parametrize(("listen", "advertised"), [("0.0.0.0", ""), ("127.0.0.1", "127.0.0.1:")])
def test_who_listens_everywhere_is_advertised_nowhere(listen: str, advertised: str) -> None:
    """Peers would measure themselves and find that cluster next door."""

    async def endpoint() -> str:
        one = probe.Probe(clock=Clock(), listen=(listen, 0))
        await one.start()
        await one.close()
        return one.endpoint

    found = asyncio.run(endpoint())
    assert found.startswith(advertised) and bool(found) is bool(advertised)
