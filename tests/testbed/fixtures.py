"""What a test asks for before it uses a real component.

Where the component cannot be had the test is skipped with a word on how to get it; in CI it fails instead, since a test
that never runs proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.testbed.build import Binaries, Missing, find_binaries, find_chromium, find_mosquitto, find_prometheus, in_ci
from tests.testbed.envoy import find_envoy
from tests.testbed.powerdns import find_powerdns

_Found = TypeVar("_Found")


def require_kubernetes() -> Binaries:
    """The binaries of a control plane, or no test."""
    return require(find_binaries)


def require_mosquitto() -> Path:
    """The broker's program, or no test."""
    return require(find_mosquitto)


def require_chromium() -> Path:
    """The browser's program, or no test."""
    return require(find_chromium)


def require_envoy() -> Path:
    """The gateway's program, or no test."""
    return require(find_envoy)


def require_prometheus() -> Path:
    """The Prometheus server's program, or no test."""
    return require(find_prometheus)


def require_powerdns() -> Path:
    """The name server's program, or no test."""
    return require(find_powerdns)


def require(find: Callable[[], _Found]) -> _Found:
    try:
        return find()
    except Missing as missing:
        if in_ci():
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
