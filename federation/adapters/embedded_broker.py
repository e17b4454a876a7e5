"""The broker inside the controller, for a laptop or a small federation. Loopback only: larger ones bring their own."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.errors import BrokerError
from amqtt.session import Session

from federation.aiokit.address import is_loopback
from federation.aiokit.broker import BrokerAddress


class BrokerDown(Exception):
    """The embedded broker could not be started. The message says why and what to do."""


class _Subscriptions(dict[str, Any]):
    """Filters and who subscribed. amqtt walks over them while others come and go: each walk is over who was there."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))

    def items(self) -> Any:
        return list(super().items())


class _Broker(Broker):  # type: ignore[misc]  # amqtt's classes come untyped
    """amqtt's, with three faults mended that agents met.

    It left sockets open: of clients it refuses, and of those that are gone when it says goodbye. It threw a client out
    when another subscribed while it connected. It sent every retained message to whoever connects, subscribed or not.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._subscriptions = _Subscriptions()

    async def _client_connected(
        self, listener_name: str, reader: StreamReaderAdapter, writer: StreamWriterAdapter
    ) -> None:
        try:
            await super()._client_connected(listener_name, reader, writer)
        finally:
            writer._writer.close()

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class EmbeddedBroker:
    """An MQTT broker on one loopback port. Port 0 takes any free one; `address` says which."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        if not is_loopback(host):
            raise ValueError(f"the embedded broker serves loopback only, not {host}; give --broker mqtts://… instead")
        self.address = BrokerAddress(host=host, port=port or _free_port(host))
        self._broker: Broker | None = None

    async def start(self) -> None:
        """Serve. Raises: BrokerDown."""
        logging.getLogger("amqtt").setLevel(logging.ERROR)
        logging.getLogger("transitions").setLevel(logging.ERROR)
        where = f"{self.address.host}:{self.address.port}"
        config = {
            "listeners": {"default": {"type": "tcp", "bind": where, "max_connections": 20_000}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        self._broker = _Broker(config)
        try:
            await self._broker.start()
        except BrokerError as error:
            raise BrokerDown(f"cannot serve MQTT on {where}: {error}; is the port taken? Try --broker-port") from error

    async def stop(self) -> None:
        """End it; every client sees its connection close."""
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
