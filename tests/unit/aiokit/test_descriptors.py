"""How file descriptors are shared out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from federation.aiokit import descriptors


@pytest.mark.parametrize("limit", [256, 1_024, 4_096, 65_536])
@pytest.mark.parametrize("gateways", [False, True])
def test_what_the_controller_lives_on_is_kept_back(limit: int, gateways: bool) -> None:
    """A flood of connections would leave no descriptor for the database, and none for agents."""
    found = descriptors.shares(limit, serves_agents=True, serves_gateways=gateways)
    assert found.api + found.agents + found.gateways <= limit - descriptors.OURS
    assert (found.gateways > 0) == gateways
    assert found.agents >= found.api >= 32
    assert descriptors.shares(limit, serves_agents=False, serves_gateways=gateways).agents == 0


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """systemd's soft limit of 1,024 would bound a federation at half as many agents."""
    code = (
        "import resource; from federation.aiokit import descriptors;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (512, 2048));"
        "print(descriptors.raised(), resource.getrlimit(resource.RLIMIT_NOFILE), descriptors.raised())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2048 (2048, 2048) 2048"
