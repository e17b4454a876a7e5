"""Reaching an MQTT broker, the same for controller and agents.

The protocol is MQTT 3.1.1, which every broker serves. Plain text is for loopback only: any other address needs TLS and
an identity (a client certificate, or a user with a password), otherwise there is no connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomqtt

from federation.aiokit.address import is_loopback
from federation.aiokit.confidential import shown


class InsecureAddress(ValueError):
    """An address over which commands would travel in plain text or from anybody. The message says what to give
    instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The broker's address and this process's identity there. Files are PEM."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        password_file: Path | None = None,
    ) -> BrokerAddress:
        """`mqtt://host[:1883]` or `mqtts://user:password@host[:8883]`; the password may be in a file instead.

        Raises: ValueError when it is no such URL, without the password; InsecureAddress when it is not loopback and
            lacks TLS or identity; OSError when the password cannot be read.
        """
        says = f"broker URL {shown(url)!r}: expected mqtt://HOST[:PORT] or mqtts://[USER@]HOST[:PORT]"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(says) from None  # the cause quotes what may be the password
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
            raise ValueError(says)
        if parts.query or parts.fragment:
            raise ValueError(f"{says}; in a password, / ? # @ are written as %2F %3F %23 %40")
        password = unquote(parts.password) if parts.password else None
        if password_file is not None:
            if not parts.username:
                raise ValueError(f"broker URL {shown(url)!r} names no user for the password: mqtts://USER@HOST[:PORT]")
            password = password_file.read_text(encoding="utf-8").strip()
        tls = parts.scheme == "mqtts"
        address = cls(
            host=parts.hostname,
            port=port or (8883 if tls else 1883),
            tls=tls,
            username=unquote(parts.username) if parts.username else None,
            password=password,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
        identified = address.cert_file is not None or address.password is not None
        if not is_loopback(address.host) and not (tls and identified):
            raise InsecureAddress(
                f"broker {address.host} is not this machine: use mqtts:// and an identity "
                "(--broker-cert and --broker-key, or mqtts://USER@HOST and --broker-password-file)"
            )
        return address

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context that verifies the broker and identifies this process; None for plain text."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


class NewestPerTopic(asyncio.Queue[aiomqtt.Message]):
    """A queue that keeps only the newest message of each topic, in order of first arrival.

    Every message is full state, so a slow reader loses nothing by reading the newest, and memory is bounded by the
    number of topics.
    """

    def _init(self, maxsize: int) -> None:
        self._queue: OrderedDict[str, aiomqtt.Message] = OrderedDict()

    def _put(self, item: Any) -> None:
        self._queue[getattr(getattr(item, "topic", None), "value", "")] = item

    def _get(self) -> aiomqtt.Message:
        return self._queue.popitem(last=False)[1]


def client(
    address: BrokerAddress,
    *,
    identifier: str,
    will: aiomqtt.Will | None = None,
    keepalive_s: int = 20,
) -> aiomqtt.Client:
    """A client not connected yet; enter it to connect. Each connection starts clean: state is never a backlog."""
    return aiomqtt.Client(
        address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        identifier=identifier,
        tls_context=address.tls_context(),
        will=will,
        clean_session=True,
        keepalive=keepalive_s,
        queue_type=NewestPerTopic,
    )
