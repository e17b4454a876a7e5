"""Reading policies, good and bad, against plain PyYAML on the same bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import yaml

from federation import resources
from federation.policy.load import parse
from tests.bench.demo_size import result


def policies() -> Iterator[dict[str, object]]:
    """The demo's catalogue, and a file nested 200 deep."""
    cases = {
        "catalogue": (resources.configs() / "demo" / "clusters.yaml").read_bytes(),
        "depth 200": ("a: " + "[" * 200 + "]" * 200).encode(),
    }
    for name, payload in cases.items():
        begun_s = time.perf_counter()
        parse("bench.yaml", payload)
        ours_s = time.perf_counter() - begun_s
        begun_s = time.perf_counter()
        list(yaml.safe_load_all(payload))
        yield result(name, ours_s, "s", "yaml.safe_load_all", time.perf_counter() - begun_s)
