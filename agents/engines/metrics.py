"""What an engine's metrics say, in one vocabulary. Pure.

Names, by the title of their documentation: vLLM "Production Metrics", which NIM has too; SGLang "Production Metrics";
Text Generation Inference "Metrics"; TensorRT-LLM "trtllm-serve"; NVIDIA Triton "Metrics", with TensorRT-LLM's backend;
PyTorch TorchServe "Metrics"; TensorFlow Serving "Monitoring". Older names stand beside newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS = "requests", "input_tokens", "output_tokens"
RUNNING, WAITING, KV_CACHE = "running", "waiting", "kv_cache"
COUNTERS = (REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS)

NAMES: Mapping[str, str] = {
    "vllm:request_success_total": REQUESTS,
    "vllm:prompt_tokens_total": INPUT_TOKENS,
    "vllm:generation_tokens_total": OUTPUT_TOKENS,
    "vllm:num_requests_running": RUNNING,
    "vllm:num_requests_waiting": WAITING,
    "vllm:kv_cache_usage_perc": KV_CACHE,
    "vllm:gpu_cache_usage_perc": KV_CACHE,
    "sglang:num_requests_total": REQUESTS,
    "sglang:prompt_tokens_total": INPUT_TOKENS,
    "sglang:generation_tokens_total": OUTPUT_TOKENS,
    "sglang:num_running_reqs": RUNNING,
    "sglang:num_queue_reqs": WAITING,
    "sglang:token_usage": KV_CACHE,
    "tgi_request_success": REQUESTS,
    "tgi_request_success_total": REQUESTS,
    "tgi_request_input_length_sum": INPUT_TOKENS,
    "tgi_request_generated_tokens_sum": OUTPUT_TOKENS,
    "tgi_batch_current_size": RUNNING,
    "tgi_queue_size": WAITING,
    "trtllm_request_success_total": REQUESTS,
    "trtllm_num_requests_running": RUNNING,
    "trtllm_num_requests_waiting": WAITING,
    "trtllm_kv_cache_utilization": KV_CACHE,
    "nv_inference_request_success": REQUESTS,
    "nv_inference_pending_request_count": WAITING,
    "ts_inference_requests_total": REQUESTS,
    ":tensorflow:serving:request_count": REQUESTS,
}
LABELLED: Mapping[tuple[str, str, str], str] = {
    ("nv_trt_llm_request_metrics", "request_type", "scheduled"): RUNNING,
    ("nv_trt_llm_request_metrics", "request_type", "waiting"): WAITING,
    ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction"): KV_CACHE,
}
_PREFIXES = tuple({*NAMES, *(name for name, _, _ in LABELLED)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one replica said at `at_s`: counters since it started, and gauges; what it does not have is not in."""

    at_s: float
    values: Mapping[str, float] = field(default_factory=dict)


def parse(text: str, at_s: float) -> Reading:
    """A replica's metrics in Prometheus' text format. Raises: ValueError for what is none.

    Lines of other metrics are not looked at: an engine has hundreds, and histograms most of them. Of two names for one
    thing the larger counts; label sets are summed, a share of the cache is the fullest.
    """
    wanted = [line for line in text.splitlines() if line.startswith(_PREFIXES)]
    by_name: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families("\n".join(wanted) + "\n"):
        for sample in family.samples:
            meaning = NAMES.get(sample.name) or _labelled(sample.name, sample.labels)
            value = float(sample.value)
            if meaning is None or not 0 <= value < 1e15:
                continue
            key = (meaning, sample.name)
            before = by_name.get(key, 0.0)
            by_name[key] = max(before, value) if meaning == KV_CACHE else before + value
    values: dict[str, float] = {}
    for (meaning, _), value in by_name.items():
        values[meaning] = max(values.get(meaning, 0.0), value)
    if KV_CACHE in values:
        values[KV_CACHE] = min(1.0, values[KV_CACHE])
    return Reading(at_s=at_s, values=values)


def _labelled(name: str, labels: Mapping[str, str]) -> str | None:
    found = (LABELLED.get((name, label, value)) for label, value in labels.items())
    return next((one for one in found if one is not None), None)


def is_anew(before: Reading, now: Reading) -> bool:
    """Whether a replica started anew between two readings: it counts from zero."""
    return any(now.values.get(name, 0.0) < before.values.get(name, 0.0) for name in COUNTERS)


def rates(before: Reading | None, now: Reading) -> dict[str, float]:
    """Per second of what is counted, between two readings of one replica; nothing where it started anew."""
    if before is None or now.at_s <= before.at_s:
        return {}
    found = {}
    for name in COUNTERS:
        if name in before.values and name in now.values and now.values[name] >= before.values[name]:
            found[name] = (now.values[name] - before.values[name]) / (now.at_s - before.at_s)
    return found


def summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Over replicas; of the cache the mean."""
    rows = list(parts)
    found: dict[str, float] = {}
    for name in {key for row in rows for key in row}:
        values = [row[name] for row in rows if name in row]
        found[name] = sum(values) / len(values) if name == KV_CACHE else sum(values)
    return found
