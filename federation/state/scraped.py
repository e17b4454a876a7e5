"""What is asked of Prometheus, and its answers in the words of an agent's report. Pure.

The queries are for the metrics that engines and gateways have by themselves. One label says in which cluster a series
was scraped, as an external label of each cluster's Prometheus or a relabelling does. Envoy's clusters are named by
model and cell (`federation/traffic/xds.py`); engines name models by what they were started with: `models` translates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from federation.state.world import OfCluster
from federation.wire import messages

Labels = Mapping[str, str]
Row = tuple[Labels, float]
MOST_RATE = 1e9

_BY_CELL, _BY_NAME, _BY_MODEL = "users", "users_by_name", "users_by_model"
_ENGINES: Mapping[str, tuple[str, ...]] = {
    "requests_per_second": ("vllm:request_success_total", "sglang:num_requests_total"),
    "input_tokens_per_second": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total"),
    "output_tokens_per_second": ("vllm:generation_tokens_total", "sglang:generation_tokens_total"),
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs"),
    "kv_cache_used": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
}
_ROUTERS = ("llm_d_epp_request_total", "inference_objective_request_total")


class Prometheus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A settings document: one Prometheus, or what speaks its API, that has the series of all clusters."""

    url: Annotated[str, Meta(pattern=r"^https?://[^@\s]+$")]
    token_file: str = ""
    """A file with a bearer token."""
    cluster_label: Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "cluster"
    model_label: Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "model_name"
    models: dict[str, str] = {}
    """The name of a model at its engine -> its name here; others are named alike."""
    window_seconds: Annotated[int, Meta(ge=10, le=3600)] = 120
    """Rates are of so long: four scrapes at least."""
    period_seconds: Annotated[float, Meta(ge=0.2, le=3600)] = 30.0
    queries: dict[str, str] = {}
    """More queries for `users` by name: each gives requests per second by cluster, `model` and `cell`."""


class Query(NamedTuple):
    """`kind` says what the answer is of."""

    kind: str
    expression: str


def queries(settings: Prometheus) -> tuple[Query, ...]:
    """All that is asked at one time."""
    by, window = settings.cluster_label, f"[{settings.window_seconds}s]"
    model = settings.model_label

    def named(names: Iterable[str]) -> str:
        return f'{{__name__=~"{"|".join(names)}"}}'

    upstream = 'envoy_cluster_upstream_rq_completed{envoy_cluster_name=~"[^|]+[|](any|others|cell[|].+)"}'
    limited = 'envoy_http_local_rate_limit_enabled{envoy_local_http_ratelimit_prefix=~"(refused|sent)[|].+"}'
    made = [
        Query(_BY_CELL, f"sum by ({by}, envoy_cluster_name) (rate({upstream}{window}))"),
        Query(_BY_NAME, f"sum by ({by}, envoy_local_http_ratelimit_prefix) (rate({limited}{window}))"),
        Query(_BY_MODEL, f"sum by ({by}, {model}) (rate({named(_ROUTERS)}{window}))"),
        Query("replicas", f"count by ({by}, {model}) ({named(_ENGINES['running'])})"),
    ]
    for kind, names in _ENGINES.items():
        if kind.endswith("per_second"):
            made.append(Query(kind, f"sum by ({by}, {model}) (rate({named(names)}{window}))"))
        else:
            how = "avg" if kind == "kv_cache_used" else "sum"
            made.append(Query(kind, f"{how} by ({by}, {model}) ({named(names)})"))
    return (*made, *(Query("", expression) for _, expression in sorted(settings.queries.items())))


def read(settings: Prometheus, answers: Iterable[tuple[Query, Iterable[Row]]]) -> dict[str, OfCluster]:
    """Cluster -> figures. Series without the cluster's label, and values that cannot be, are left out."""
    users: dict[str, dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    engines: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for query, rows in answers:
        for labels, value in rows:
            cluster = labels.get(settings.cluster_label, "")
            if not cluster or not 0 <= value < MOST_RATE:
                continue
            if query.kind in (_BY_CELL, _BY_NAME, _BY_MODEL, ""):
                for model, cell, part in _asked(settings, query.kind, labels):
                    users[cluster][model, cell] += part * value
            elif model := _model(settings, labels):
                engines[cluster][model][query.kind] = value
    return {
        cluster: OfCluster(counted=_counted(users.get(cluster, {})), engines=_engines(engines.get(cluster, {})))
        for cluster in sorted({*users, *engines})
    }


def _asked(settings: Prometheus, kind: str, labels: Labels) -> Iterable[tuple[str, str, float]]:
    """(model, cell, part) that a series counts; a part below 0 is counted by another series too."""
    if kind == _BY_CELL:
        model, _, rest = labels.get("envoy_cluster_name", "").partition("|")
        yield model, rest.removeprefix("cell|") if rest.startswith("cell|") else "", 1.0
    elif kind == _BY_NAME:
        how, _, rest = labels.get("envoy_local_http_ratelimit_prefix", "").partition("|")
        model, _, cell = rest.partition("|")
        yield model, cell, 1.0
        if how == "sent":
            yield model, "", -1.0
    elif kind == _BY_MODEL:
        yield _model(settings, labels), "", 1.0
    else:
        yield labels.get("model", ""), labels.get("cell", ""), 1.0


def _model(settings: Prometheus, labels: Labels) -> str:
    name = labels.get(settings.model_label, "")
    return settings.models.get(name, name)


def _counted(rows: Mapping[tuple[str, str], float]) -> tuple[messages.CountedSample, ...]:
    return tuple(
        messages.CountedSample(model=model, cell=cell[:100], requests_per_second=max(0.0, rps))
        for (model, cell), rps in sorted(rows.items())
        if model
    )


def _engines(rows: Mapping[str, Mapping[str, float]]) -> tuple[messages.EngineSample, ...]:
    return tuple(
        messages.EngineSample(
            model=model,
            replicas=int(figures.get("replicas", 0)),
            requests_per_second=figures.get("requests_per_second"),
            input_tokens_per_second=figures.get("input_tokens_per_second"),
            output_tokens_per_second=figures.get("output_tokens_per_second"),
            running=figures.get("running"),
            waiting=figures.get("waiting"),
            kv_cache_used=min(1.0, figures["kv_cache_used"]) if "kv_cache_used" in figures else None,
        )
        for model, figures in sorted(rows.items())
    )
