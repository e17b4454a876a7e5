"""The address of a lent executor."""

from __future__ import annotations

import pytest

from federation.adapters import executors


@pytest.mark.parametrize(
    ("url", "address"), [("dask://127.0.0.1:8786", "tcp://127.0.0.1:8786"), ("dask://[::1]:8786", "tcp://[::1]:8786")]
)
def test_a_scheduler_is_addressed_as_dask_writes_it(url: str, address: str) -> None:
    """`--solver` would not connect, by IPv6 at least."""
    assert executors.check(url) == address


@pytest.mark.parametrize("url", ["", "127.0.0.1:8786", "tcp://127.0.0.1:8786", "dask://host", "dask://host:x"])
def test_a_wrong_url_is_refused_with_the_form_that_is_right(url: str) -> None:
    """The controller would start, and fail at its first plan."""
    with pytest.raises(ValueError, match="dask://HOST:PORT"):
        executors.check(url)
