"""Tests. The product is loaded first, as it is where it runs: it says how many threads linear algebra has."""

import federation  # noqa: F401
