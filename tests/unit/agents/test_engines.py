"""What model servers say of themselves, by the names that they use."""

from __future__ import annotations

import pytest

from agents.engines.metrics import KV_CACHE, OUTPUT_TOKENS, REQUESTS, RUNNING, WAITING, Reading, parse, rates, summed

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama"} 7.0
vllm:num_requests_running{engine="1",model_name="llama"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="llama"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.41
vllm:kv_cache_usage_perc{engine="1",model_name="llama"} 0.62
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="llama"} 1.2e+06
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="llama"} 300000.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="llama"} 900.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="llama"} 100.0
vllm:request_success_created{engine="0",finished_reason="stop",model_name="llama"} 1.7e+09
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="llama"} 12.0
"""
OTHERS = {
    "sglang": (
        'sglang:num_running_reqs{model_name="q"} 4\nsglang:num_queue_reqs{model_name="q"} 2\n'
        'sglang:token_usage{model_name="q"} 0.5\nsglang:num_requests_total{model_name="q"} 77\n',
        {REQUESTS: 77.0, RUNNING: 4.0, WAITING: 2.0, KV_CACHE: 0.5},
    ),
    "tgi": (
        "# TYPE tgi_request_success counter\ntgi_request_success 61\ntgi_queue_size 9\ntgi_batch_current_size 8\n"
        "# TYPE tgi_request_generated_tokens histogram\ntgi_request_generated_tokens_sum 4000\n",
        {REQUESTS: 61.0, WAITING: 9.0, RUNNING: 8.0, OUTPUT_TOKENS: 4000.0},
    ),
    "triton": (
        'nv_inference_request_success{model="resnet",version="1"} 5\n'
        'nv_trt_llm_request_metrics{model="t",request_type="waiting",version="1"} 3\n'
        'nv_trt_llm_request_metrics{model="t",request_type="scheduled",version="1"} 6\n'
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="t",version="1"} 0.25\n',
        {REQUESTS: 5.0, WAITING: 3.0, RUNNING: 6.0, KV_CACHE: 0.25},
    ),
    "torchserve": (
        'ts_inference_requests_total{model_name="bert",model_version="default",hostname="a"} 31\n',
        {REQUESTS: 31.0},
    ),
    "tensorflow-serving": (
        "# TYPE :tensorflow:serving:request_count counter\n"
        ':tensorflow:serving:request_count{model_name="half",status="OK"} 13\n',
        {REQUESTS: 13.0},
    ),
    "old vllm": ("vllm:gpu_cache_usage_perc 0.3\n", {KV_CACHE: 0.3}),
}


def test_an_engine_of_several_parts_is_one_replica() -> None:
    """Replicas that are full would look half empty."""
    found = parse(VLLM, 1.0).values
    assert found == {
        "requests": 1000.0,
        "input_tokens": 1.2e6,
        "output_tokens": 3e5,
        "running": 12.0,
        "waiting": 3.0,
        "kv_cache": 0.62,
    }


@pytest.mark.parametrize("engine", OTHERS)
def test_every_engine_is_read_by_its_own_names(engine: str) -> None:
    """Whoever runs another engine would have to write a file."""
    text, values = OTHERS[engine]
    assert parse(text, 1.0).values == values


@pytest.mark.parametrize(
    "text", ["", "fra", "<html>", "vllm:num_requests_running NaN\n", "vllm:num_requests_running -1\n"]
)
def test_what_is_no_figure_is_none(text: str) -> None:
    """A page of a proxy would be a replica without load."""
    assert parse(text, 1.0).values == {}


def test_broken_metrics_are_an_error_and_no_crash() -> None:
    """One replica's garbage would end the agent's reports."""
    with pytest.raises(ValueError):
        parse("vllm:num_requests_running{a= 1\n", 1.0)


def test_rates_take_two_readings_of_one_start() -> None:
    """A replica that restarts would be a burst, or a rate below nothing."""
    first, later = Reading(at_s=0, values={REQUESTS: 100.0}), Reading(at_s=10, values={REQUESTS: 150.0})
    assert rates(None, later) == {}
    assert rates(first, later) == {REQUESTS: 5.0}
    assert rates(first, Reading(at_s=10, values={REQUESTS: 3.0})) == {}


def test_replicas_are_summed_but_their_caches_are_not() -> None:
    """Two half full caches are not one that is full."""
    assert summed([{RUNNING: 2.0, KV_CACHE: 0.4}, {RUNNING: 3.0, KV_CACHE: 0.6}]) == {RUNNING: 5.0, KV_CACHE: 0.5}
