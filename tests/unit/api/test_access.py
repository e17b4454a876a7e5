"""Who may ask."""

from __future__ import annotations

import pytest

from federation.api import access


@pytest.mark.parametrize("given", ["", "tokem", "token ", "\udcff\udcfe", "tökén", "\x00"])
def test_a_wrong_token_of_any_bytes_is_only_wrong(given: str) -> None:
    """Bytes that are no text would be an error of ours, with a stack in the log, for anyone to cause."""
    assert not access.same(given, "token")
    assert access.same("token", "token")
