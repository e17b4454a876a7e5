"""Addresses in options, and whether one can only be this machine: plain text is allowed there only."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_port(text: str, example: str) -> tuple[str, int]:
    """HOST:PORT in two; an IPv6 address is in brackets. Raises: ValueError with what is expected."""
    host, _, port = text.rpartition(":")
    is_bare = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or is_bare or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r}: expected HOST:PORT, as {example}")
    return host.strip("[]"), int(port)
