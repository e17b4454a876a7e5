"""One row per runtime: ports, probes, metrics, shared memory, model cache, and arguments that follow from the intent.

Sources, by the title of their documentation: vLLM "OpenAI-Compatible Server" and "Using Kubernetes"; NVIDIA Triton
"Inference Protocols and APIs" and "Metrics"; PyTorch "TorchServe: Advanced configuration", "Health check API" and
"Metrics API"; TensorFlow Serving "RESTful API" and "TensorFlow Serving Configuration"; NVIDIA NIM "Configure" and
"Health". What the user's own arguments say is never said again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from federation.wire.messages import Workload

Arguments = Callable[[Workload], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How a runtime is run. Paths of probes are HTTP; None asks only whether the port opens.

    `metrics_port` None is the port that requests come to. `ports` are further ones of the container.
    """

    arguments: Arguments
    ready_path: Callable[[Workload], str] | None = None
    live_path: str | None = None
    metrics_path: str = ""
    metrics_port: int | None = None
    ports: tuple[tuple[str, int], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    cache_path: str = "/var/cache/model"
    shared_memory_mib: int = 0


def _given(workload: Workload, option: str) -> bool:
    return any(one == option or one.startswith(f"{option}=") for one in workload.args)


def _value(workload: Workload, option: str, default: str) -> str:
    """What the user's arguments give an option, `--option=value` or `--option value`."""
    for number, one in enumerate(workload.args):
        if one.startswith(f"{option}="):
            return one.partition("=")[2]
        if one == option and number + 1 < len(workload.args):
            return workload.args[number + 1]
    return default


_SPLITS = ("--tensor-parallel-size", "--pipeline-parallel-size", "--prefill-context-parallel-size")
"""Options of vLLM that split a model over devices, and that no other begins like."""
_SHORTEST = len("--pipe")


def _spelled(workload: Workload) -> Workload:
    """With options as vLLM's parser reads them: `--tensor_parallel_size`, `--tensor` are `--tensor-parallel-size`."""
    return msgspec.structs.replace(workload, args=tuple(_option(one) for one in workload.args))


def _option(text: str) -> str:
    name, sign, value = text.partition("=")
    if not name.startswith("--"):
        return text
    name = name.replace("_", "-")
    meant = [one for one in _SPLITS if len(name) >= _SHORTEST and one.startswith(name)]
    return f"{meant[0] if meant else name}{sign}{value}"


def _parallel(workload: Workload, option: str, short: str) -> int | None:
    """How many ways an option splits a model; 1 where it is not given, None where it says no number."""
    value = _value(workload, option, _value(workload, short, "1"))
    return int(value) if value.isdecimal() and int(value) > 0 else None


def _vllm(workload: Workload) -> tuple[str, ...]:
    """The devices that no other parallelism takes are split by tensors, where the user does not say how many."""
    given = _spelled(workload)
    more: tuple[str, ...] = () if _given(given, "--port") else (f"--port={workload.port}",)
    pipeline = _parallel(given, "--pipeline-parallel-size", "-pp")
    data = _parallel(given, "--data-parallel-size", "-dp")
    context = _parallel(given, "--prefill-context-parallel-size", "-pcp")
    says = any(_given(given, one) for one in ("--tensor-parallel-size", "-tp", "--config"))
    others = (pipeline or 0) * (data or 0) * (context or 0)
    if not says and others and workload.devices % others == 0:
        tensor = workload.devices // others
        more += (f"--tensor-parallel-size={tensor}",) if tensor > 1 else ()
    return (*workload.args, *more)


def _triton(workload: Workload) -> tuple[str, ...]:
    program = () if workload.args[:1] == ("tritonserver",) else ("tritonserver",)
    more: tuple[str, ...] = () if _given(workload, "--http-port") else (f"--http-port={workload.port}",)
    if not (_given(workload, "--model-repository") or _given(workload, "--model-store")):
        more += ("--model-repository=/var/cache/model",)
    return (*program, *workload.args, *more)


def _tensorflow(workload: Workload) -> tuple[str, ...]:
    more: tuple[str, ...] = () if _given(workload, "--rest_api_port") else (f"--rest_api_port={workload.port}",)
    if not (_given(workload, "--model_name") or _given(workload, "--model_config_file")):
        more += (f"--model_name={workload.model}",)
    return (*workload.args, *more)


def _as_given(workload: Workload) -> tuple[str, ...]:
    return workload.args


def _at(path: str) -> Callable[[Workload], str]:
    return lambda workload: path


def _torchserve_environment() -> tuple[tuple[str, str], ...]:
    """It listens on loopback unless told; its management stays there. Who may ask is the NetworkPolicy's matter."""
    return (
        ("TS_DISABLE_TOKEN_AUTHORIZATION", "true"),
        ("TS_INFERENCE_ADDRESS", "http://0.0.0.0:8080"),
        ("TS_MANAGEMENT_ADDRESS", "http://127.0.0.1:8081"),
        ("TS_METRICS_ADDRESS", "http://0.0.0.0:8082"),
        ("TS_METRICS_MODE", "prometheus"),
    )


PRESETS: Mapping[str, Preset] = {
    "vllm": Preset(
        arguments=_vllm,
        ready_path=_at("/health"),
        live_path="/health",
        metrics_path="/metrics",
        environment=(("HF_HOME", "/var/cache/model/huggingface"), ("VLLM_CACHE_ROOT", "/var/cache/model/vllm")),
        # Tensor parallelism exchanges through shared memory; the container runtime's 64 MiB are too few.
        shared_memory_mib=2048,
    ),
    "triton": Preset(
        arguments=_triton,
        ready_path=_at("/v2/health/ready"),
        live_path="/v2/health/live",
        metrics_path="/metrics",
        metrics_port=8002,
        ports=(("grpc", 8001),),
        # The Python backend's processes share their tensors there.
        shared_memory_mib=1024,
    ),
    "torchserve": Preset(
        arguments=_as_given,
        ready_path=_at("/ping"),
        live_path="/ping",
        metrics_path="/metrics",
        metrics_port=8082,
        ports=(("grpc", 7070),),
        environment=_torchserve_environment(),
        cache_path="/home/model-server/tmp",
        # Workers of PyTorch share their tensors there.
        shared_memory_mib=1024,
    ),
    "tensorflow-serving": Preset(
        arguments=_tensorflow,
        ready_path=lambda workload: f"/v1/models/{_value(workload, '--model_name', workload.model)}",
        metrics_path="/monitoring/prometheus/metrics",
        ports=(("grpc", 8500),),
    ),
    "nemo": Preset(
        arguments=_as_given,
        ready_path=_at("/v1/health/ready"),
        live_path="/v1/health/live",
        metrics_path="/v1/metrics",
        environment=(("NIM_CACHE_PATH", "/opt/nim/.cache"),),
        cache_path="/opt/nim/.cache",
        shared_memory_mib=2048,
    ),
    "custom": Preset(arguments=_as_given),
}
"""By the names that policies use. A runtime that is not known runs as `custom`."""


def of(workload: Workload) -> Preset:
    """The row of a workload's runtime."""
    return PRESETS.get(workload.runtime, PRESETS["custom"])
