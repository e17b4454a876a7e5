"""What the map's TypeScript is checked against is what the controller says."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.api import typescript

VIEWS = Path(typescript.__file__).parents[1] / "web" / "src" / "views.ts"


def test_the_maps_types_are_those_of_the_answers() -> None:
    """The map would read a field that is not there, and show nothing, or a state that is not so."""
    assert VIEWS.read_text() == typescript.generate(), "run `make schemas`"


def test_a_type_without_a_counterpart_is_refused() -> None:
    """It would be written as something else, and the map be checked against that."""
    with pytest.raises(TypeError, match="no counterpart in TypeScript yet"):
        typescript._type(complex)
