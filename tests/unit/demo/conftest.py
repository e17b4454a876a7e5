"""The demo's world, loaded once."""

from __future__ import annotations

import pytest

from federation.demo import catalogue
from federation.demo.physics import Physics


@pytest.fixture(scope="session")
def physics() -> Physics:
    return Physics(catalogue.load())
