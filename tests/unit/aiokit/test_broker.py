"""Broker URLs, right and mistyped: who reads the log must not learn the password."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.aiokit.broker import BrokerAddress
from federation.aiokit.confidential import has_password

MISTYPED = [
    "mqtt//me:hunter2@host",
    "mqtts:/me:hunter2@host",
    "mqtts:me:hunter2@host",
    "me:hunter2@host",
    "mqtts://me:hunter2@host:port",
    "mqtts://me:hunter2@host:99999",
    "mqtts://me:hunter2/@host",
    "mqtts://me:/hunter2@host",
    "mqtts://me:hunter2#@host",
    "mqtts://me:x?hunter2@host",
    "mqtts://me:hunter2@",
    "mqtts://me:hunter2@[::1",
    "http://me:hunter2@host",
    "mqtt://me:hunter2@host",
]


@pytest.mark.parametrize("url", MISTYPED)
def test_a_mistyped_url_does_not_tell_the_password(url: str) -> None:
    """A slip in a manifest would put the broker's password into the log that everybody reads."""
    with pytest.raises(ValueError, match="broker") as caught:
        BrokerAddress.parse(url)
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert has_password(url), "it would be taken as an argument"


def test_the_password_may_be_in_a_file(tmp_path: Path) -> None:
    """Arguments are read by everybody on the machine."""
    (tmp_path / "password").write_text("hunter2\n")
    address = BrokerAddress.parse("mqtts://me@host", password_file=tmp_path / "password")
    assert (address.username, address.password, address.port) == ("me", "hunter2", 8883)
    assert "hunter2" not in repr(address)
    with pytest.raises(ValueError, match="names no user"):
        BrokerAddress.parse("mqtts://host", password_file=tmp_path / "password")


@pytest.mark.parametrize("url", ["mqtt://127.0.0.1:1883", "mqtts://me@host", "mqtts://[::1]:8883"])
def test_a_url_without_a_password_may_be_an_argument(url: str) -> None:
    """A broker's plain address would be refused as a secret."""
    assert not has_password(url)
