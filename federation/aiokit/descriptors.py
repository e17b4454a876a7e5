"""File descriptors: as many as may be had, shared out so that no flood takes what the rest lives on."""

from __future__ import annotations

import resource
from dataclasses import dataclass

ENOUGH = 65_536
"""More is not asked for: some programs walk over all that they might have."""
OURS = 128
"""For the database, the solver's pipes, connections to the broker, files, and what is being refused."""
API_AT_MOST = 1_024
AGENTS_AT_MOST = 20_000
GATEWAYS_AT_MOST = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many connections of each kind there may be at once."""

    descriptors: int
    """What this process may have open."""
    api: int
    """To the API and the map."""
    agents: int
    """To the broker inside."""
    gateways: int
    """Streams of gateways."""


def raised() -> int:
    """What this process may have open, after the soft limit was raised to the hard one, within reason."""
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
    """A quarter of what is free for the API; the rest for agents and gateways, half each where both dial in."""
    free = max(32, descriptors - OURS)
    api = min(API_AT_MOST, free // 4)
    rest = free - api
    gateways = min(GATEWAYS_AT_MOST, rest // 2 if serves_agents else rest) if serves_gateways else 0
    agents = min(AGENTS_AT_MOST, rest - gateways) if serves_agents else 0
    return Shares(descriptors=descriptors, api=api, agents=agents, gateways=gateways)
