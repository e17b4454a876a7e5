"""Keeps the store up: writes what is only in memory when there is space again, and finds out who else uses the file."""

from __future__ import annotations

import asyncio

from federation.adapters.store import Store, StoreError, Superseded
from federation.loops.hub import Hub

PERIOD_S = 5.0
"""Of the machine's seconds."""


async def run(hub: Hub, store: Store) -> None:
    """Look after the store, for ever. What is wrong is told by the store, once."""
    while True:
        await asyncio.sleep(PERIOD_S)
        await once(hub, store)


async def once(hub: Hub, store: Store) -> None:
    """One look."""
    try:
        await store.keep_up()
    except Superseded as error:
        hub.supersede(str(error))
    except StoreError:
        return
