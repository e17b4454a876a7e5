"""What an option may give as HOST:PORT."""

from __future__ import annotations

import pytest

from federation.aiokit.address import host_port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:8480", "127.0.0.1", 8480), ("[::1]:443", "::1", 443), ("models.example:0", "models.example", 0)],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    """A controller would listen where nobody looks."""
    assert host_port(text, "127.0.0.1:1") == (host, port)


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:http", "host:99999", "::1", "::1:80", "host:²"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    """A wrong port would be found out when the process dies, without a word about the option."""
    with pytest.raises(ValueError, match=r"expected HOST:PORT, as 127\.0\.0\.1:1"):
        host_port(text, "127.0.0.1:1")
