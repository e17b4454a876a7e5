"""The wire: what was once sent is understood for ever, and what nobody should send is refused without harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import messages, topics
from tests.builders import L4

PAYLOADS = sorted((Path(__file__).parent / "payloads").glob("*.json"))


def raw(kind: str) -> dict[str, Any]:
    """A payload that was once sent."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "payloads" / f"{kind}.v1.json").read_bytes())
    return found


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_what_an_older_peer_sends_is_understood(path: Path) -> None:
    """Controller and agents of a large fleet are never all of one version."""
    message = messages.decode(path.read_bytes())
    sent = json.loads(path.read_bytes())
    assert sent["type"] == path.name.partition(".")[0]
    again = json.loads(messages.encode(message))
    assert within(sent, again), "a field that an older peer reads is gone"


def within(sent: Any, again: Any) -> bool:
    """Whether `again` says all that was sent; it may say more."""
    if isinstance(sent, dict):
        return isinstance(again, dict) and all(key in again and within(sent[key], again[key]) for key in sent)
    if isinstance(sent, list):
        return isinstance(again, list) and len(sent) == len(again) and all(map(within, sent, again))
    return bool(sent == again)


def test_there_is_a_payload_of_every_message() -> None:
    """A message could change its form without any test of the version before."""
    known = {kind.__struct_config__.tag for kind in get_args(messages.Message)}
    assert {path.name.partition(".")[0] for path in PAYLOADS} == known


def test_a_sealed_order_of_an_older_controller_is_intact() -> None:
    """Agents would refuse every order after an upgrade of one side."""
    message = messages.decode(json.dumps(raw("desired")).encode())
    assert isinstance(message, messages.Desired)
    assert message.checksum == raw("desired")["checksum"]


@pytest.mark.parametrize("kind", ["report", "ack", "status", "peers"])
def test_a_field_of_a_newer_peer_is_passed_over(kind: str) -> None:
    """During an upgrade old agents and new controllers would not understand each other."""
    messages.decode(json.dumps(raw(kind) | {"fieldOfTheFuture": {"a": [1]}}).encode())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("report", {"version": 2}),
        ("report", {"cluster": ""}),
        ("report", {"cluster": "../other"}),
        ("report", {"cluster": "a/b"}),
        ("report", {"seq": 0}),
        ("report", {"seq": 1.5}),
        ("report", {"boot_id": "short"}),
        ("report", {"interval_s": 0}),
        ("report", {"pools": None}),
        ("report", {"pools": [{"key": {"product": "x"}, "vram_gib": -1, "allocatable": 1, "free": 1}]}),
        ("report", {"pools": [{"key": {"product": "x"}, "vram_gib": 1, "allocatable": -1, "free": 1}]}),
        ("report", {"pools": [{"key": {"product": "x"}, "vram_gib": 1, "allocatable": 10**9, "free": 1}]}),
        (
            "report",
            {"pools": [{"key": {"product": "x", "market": "?"}, "vram_gib": 1, "allocatable": 1, "free": 1}]},
        ),
        ("report", {"pools": [{}] * 513}),
        ("report", {"demand": [{"model": "m", "cell": {"name": "c", "country": "DEU", "lat": 0, "lon": 0}}]}),
        ("ack", {"ok": "yes"}),
        ("status", {"online": None}),
        ("desired", {"epoch": 0}),
        ("desired", {"workloads": [{"model": "m"}]}),
    ],
)
def test_what_is_out_of_bounds_is_refused(kind: str, change: dict[str, Any]) -> None:
    """One message with an absurd value would reach the plan."""
    with pytest.raises(messages.WireError):
        messages.decode(json.dumps(raw(kind) | change).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'{"type": "report"}',
        b'{"type": "unheard-of"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"type":"status","cluster":"a","boot_id":"b","online":true' + b" " * messages.MAX_MESSAGE_BYTES + b"}",
    ],
    ids=["empty", "null", "list", "bare", "unknown", "binary", "deep", "long"],
)
def test_garbage_is_refused(payload: bytes) -> None:
    """Bytes that are no message would be taken for one."""
    with pytest.raises(messages.WireError):
        messages.decode(payload)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(number: str) -> None:
    """One infinite price in one report would poison the cost of every plan."""
    text = json.dumps(raw("report")).replace("0.71", number)
    with pytest.raises(messages.WireError):
        messages.decode(text.encode())


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    """One malformed message would end the loop that reads all clusters."""
    try:
        messages.decode(payload)
    except messages.WireError:
        return


@given(st.sampled_from(["report", "desired", "ack", "status", "peers"]), st.data())
def test_a_damaged_message_is_refused_or_read(kind: str, data: st.DataObject) -> None:
    """A bug in one agent must not stop the controller from hearing the others."""
    payload = bytearray(json.dumps(raw(kind)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        messages.decode(bytes(payload))
    except messages.WireError:
        return


def sealed(payload: bytes) -> bool:
    message = messages.decode(payload)
    assert isinstance(message, messages.Desired)
    return bool(message.checksum)


@pytest.mark.parametrize("change", [('"replicas":2', '"replicas":3'), ('"epoch":3', '"epoch":4'), ("vllm/", "evil/")])
def test_every_change_of_an_order_breaks_its_seal(change: tuple[str, str]) -> None:
    """An order that was changed on its way would be carried out."""
    text = json.dumps(raw("desired"), separators=(",", ":"))
    assert sealed(text.encode())
    assert change[0] in text
    assert not sealed(text.replace(*change).encode())


def test_an_order_of_a_newer_controller_is_intact() -> None:
    """After an upgrade of the controller every older agent would refuse it."""
    newer = raw("desired") | {"fieldOfTheFuture": 7}
    newer["workloads"][0]["alsoNew"] = [1.0, 60]
    newer["checksum"] = messages._checksum(json.dumps(newer).encode())
    assert sealed(json.dumps(newer).encode())


def test_a_seal_does_not_depend_on_how_a_number_is_written() -> None:
    """Agents would refuse intact orders, because 60 and 60.0 differ as text."""
    message = messages.Desired(cluster="fra", epoch=1, generation=1, workloads=(a_workload(warmup_s=60),))
    assert sealed(messages.encode(messages.seal(message)))


def a_workload(**fields: Any) -> messages.Workload:
    values: dict[str, Any] = {
        "model": "m",
        "pool": L4,
        "replicas": 1,
        "devices": 1,
        "runtime": "vllm",
        "image": "i",
        "cpu": "1",
    }
    return messages.Workload(**(values | {"memory": "1Gi"} | fields))


@pytest.mark.parametrize(
    "text",
    ["", "isochrone/v1/a", "isochrone/v2/a/report", "isochrone/v1//report", "isochrone/v1/a/else", "x/v1/a/ack"],
)
def test_a_foreign_topic_is_none_of_ours(text: str) -> None:
    """Messages of other systems on the broker would be taken for reports."""
    assert topics.parse(text) is None


def test_a_topic_is_read_as_it_was_written() -> None:
    """A report would be counted for another cluster, or for none."""
    assert topics.parse(topics.topic("fra-1", "report")) == ("fra-1", "report")
    assert messages.PoolKey(product="X", mig_profile="1g.5gb", market="spot").text == "X:1g.5gb/spot"
    assert L4.text == "NVIDIA-L4/on-demand"


@pytest.mark.parametrize("kind", ["report", "ack"])
def test_a_generation_may_grow_for_as_long_as_a_federation_lives(kind: str) -> None:
    """After a million changes every report would be refused, and all clusters be lost at once."""
    messages.decode(json.dumps(raw(kind) | {"generation": 5_000_000, "epoch": 2_000_000}).encode())
