"""Partitions of a device: one name, however it is written."""

from __future__ import annotations

import pytest

from federation.policy.load import parse


def accelerator(profile: str) -> bytes:
    """A model on a part of a device."""
    return f"""
apiVersion: isochrone.dev/v1alpha1
kind: Model
metadata: {{name: small}}
spec:
  runtime: {{preset: vllm, image: registry.example/small:1}}
  resources: {{cpu: "1", memory: 4Gi}}
  slo: {{p95LatencyMs: 400}}
  accelerators: [{{product: A, migProfile: "{profile}", requestsPerSecond: 1}}]
""".encode()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1g.10gb", "1g.10gb"),
        ("1g.6gb+me", "1g.6gb.me"),
        ("1g.6gb.me", "1g.6gb.me"),
        ("1g.24gb+me.all", "1g.24gb.me.all"),
        ("2g.48gb+gfx", "2g.48gb.gfx"),
        ("1g.24gb-me", "1g.24gb-me"),
        ("cpx_nps4", "cpx_nps4"),
    ],
)
def test_a_partition_is_read_as_agents_report_it(written: str, meant: str) -> None:
    """A model on `1g.6gb+me` would wait for ever beside idle slices that agents call `1g.6gb.me`."""
    (document,) = parse("m.yaml", accelerator(written)).documents
    assert document.document.spec.accelerators[0].mig_profile == meant  # type: ignore[union-attr]


@pytest.mark.parametrize("written", ["1g", "8g.10gb", "1g.10gb+", "cpx", "10gb", "1g.10gb+ME", "1g.10gb me"])
def test_what_is_no_partition_is_refused(written: str) -> None:
    """A slip would ask for devices that there are none of."""
    (problem,) = parse("m.yaml", accelerator(written)).problems
    assert (problem.line, "migProfile" in problem.message) == (9, True)
