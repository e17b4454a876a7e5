"""What Prometheus reads, whenever it does."""

from __future__ import annotations

import ast
import threading
from collections.abc import Mapping

from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from federation.metrics import Metrics
from tests.unit.test_docstrings import ROOT


def test_series_that_stay_are_never_away_and_others_go() -> None:
    """A scrape beside a tick would see no replicas of a model, and an alert would fire; a model that is gone would keep
    its last figure for ever."""
    metrics = Metrics()
    values: Mapping[tuple[str, str], float] = {(f"model-{at}", "ready"): 1.0 for at in range(300)}
    metrics.set_all(metrics.model_replicas, values)
    missing: list[int] = []
    ended = threading.Event()

    def scrape() -> None:
        while not ended.is_set():
            found = generate_latest(metrics.registry).count(b"isochrone_model_replicas{")
            missing.extend([found] if found != len(values) else [])

    reader = threading.Thread(target=scrape)
    reader.start()
    for _ in range(200):
        metrics.set_all(metrics.model_replicas, values)
    ended.set()
    reader.join()
    assert not missing
    metrics.set_all(metrics.model_replicas, {("model-1", "ready"): 2.0})
    lines = generate_latest(metrics.registry).decode().splitlines()
    assert [one for one in lines if one.startswith("isochrone_model_replicas{")] == [
        'isochrone_model_replicas{model="model-1",state="ready"} 2.0'
    ]


def test_every_metric_that_is_registered_is_set_somewhere() -> None:
    """Prometheus would read 0 for ever of a gauge that nothing sets, and an alert on it would never fire."""
    registered = {name for name, value in vars(Metrics()).items() if isinstance(value, MetricWrapperBase)}
    sources = [path for path in (ROOT / "federation").rglob("*.py") if path.name != "metrics.py"]
    used = {
        node.attr
        for path in sources
        if "node_modules" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    assert registered
    assert registered - used == set()
