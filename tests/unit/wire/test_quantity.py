"""Kubernetes quantities: as the API server writes them, and nothing beyond bounds."""

from __future__ import annotations

import pytest

from federation.wire import quantity


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [("500m", 500), ("2", 2000), ("0.5", 500), ("1Gi", 1024**3 * 1000), ("2k", 2_000_000), ("1e3", 1_000_000)],
)
def test_a_quantity_is_read_as_kubernetes_means_it(text: str, thousandths: int) -> None:
    """A node's CPU or memory would count for a thousandth, or a thousand times, of what it is."""
    assert quantity.thousandths(text) == thousandths


@pytest.mark.parametrize("text", ["", "-1", "1.2.3", "1 Gi", "Gi", "0x10", "NaN", "1" * 19, "1E999"])
def test_what_is_no_quantity_is_none(text: str) -> None:
    """A label that somebody mistyped would become devices or memory, or an error that stops the report."""
    assert quantity.thousandths(text) is None


def test_what_is_less_than_a_thousandth_is_rounded_up() -> None:
    """A pod that requests a trace of CPU would count as requesting none."""
    assert quantity.millis("0.0001") == 1


def test_memory_of_a_node_is_cut_and_of_a_pod_rounded_up() -> None:
    """A replica would be placed on a node that lacks the last megabyte for it."""
    assert (quantity.mib("1500000"), quantity.mib("1500000", up=True)) == (1, 2)


@pytest.mark.parametrize(("text", "count"), [("8", 8), ("2k", 2000), ("500m", None), ("4097", None), ("-1", None)])
def test_devices_are_whole_and_bounded(text: str, count: int | None) -> None:
    """A device plugin that misreports would give the plan half devices, or more than any node has."""
    assert quantity.devices(text) == count


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("0", None), ("11", None), ("7.0", None), ("٧", None)])
def test_a_whole_number_is_within_its_bounds(text: str, value: int | None) -> None:
    """A label in other digits, or beyond any device, would be taken for a count."""
    assert quantity.whole(text, least=1, most=10) == value
