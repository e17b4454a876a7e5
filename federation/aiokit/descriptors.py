"""File descriptors: as many as possible, divided so that a flood of one kind cannot take those of the others."""

from __future__ import annotations

import resource
from dataclasses import dataclass

ENOUGH = 65_536
"""The most that is requested: some programs iterate over all possible descriptors."""
OURS = 128
"""Reserved for the database, the solver's pipes, connections to the broker, files, and connections being refused."""
API_AT_MOST = 1_024
AGENTS_AT_MOST = 20_000
GATEWAYS_AT_MOST = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The most connections of each kind at once."""

    descriptors: int
    """The limit of this process."""
    api: int
    """Connections to the API and the map."""
    agents: int
    """Connections to the embedded broker."""
    gateways: int
    """Streams of gateways."""


def raised() -> int:
    """The limit of this process after the soft limit was raised to the hard one, up to `ENOUGH`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ENOUGH if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


def shares(descriptors: int, *, serves_agents: bool, serves_gateways: bool) -> Shares:
    """A quarter of the free descriptors for the API; the rest for agents and gateways, half each where both connect."""
    free = max(32, descriptors - OURS)
    api = min(API_AT_MOST, free // 4)
    rest = free - api
    gateways = min(GATEWAYS_AT_MOST, rest // 2 if serves_agents else rest) if serves_gateways else 0
    agents = min(AGENTS_AT_MOST, rest - gateways) if serves_agents else 0
    return Shares(descriptors=descriptors, api=api, agents=agents, gateways=gateways)
