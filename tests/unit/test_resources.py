"""The product's own YAML is found."""

from __future__ import annotations

from federation import resources


def test_the_shipped_configuration_is_found() -> None:
    """An installed controller would know no accelerators and no continents."""
    found = {path.name for path in resources.configs().iterdir()}
    assert {"accelerators.yaml", "continents.yaml", "policies", "schemas"} <= found
