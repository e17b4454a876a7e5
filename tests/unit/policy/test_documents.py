"""What documents mean: the port that a model serves on, and the accelerators that it and a cluster name."""

from __future__ import annotations

import pytest

from federation.policy.documents import Accelerator, AcceleratorPool, Model, Runtime
from federation.policy.load import parse
from federation.wire.messages import PoolKey
from tests.builders import L4, a_model


@pytest.mark.parametrize(
    ("preset", "args", "port", "serves_on"),
    [
        ("vllm", (), None, 8000),
        ("vllm", ("--port", "9000"), None, 9000),
        ("vllm", ("--model", "x", "--port=9000"), None, 9000),
        ("vllm", ("--port=1", "--port=2"), None, 2),
        ("vllm", ("--port=$(PORT)",), None, 8000),
        ("vllm", ("--port",), None, 8000),
        ("vllm", ("--port=99999",), None, 8000),
        ("vllm", ("--served-model-name", "--port"), 7000, 7000),
        ("triton", ("--http-port=8005", "--grpc-port", "8006"), None, 8005),
        ("tensorflow-serving", ("--port=8500", "--rest_api_port=8502"), None, 8502),
        ("custom", ("--port", "30000"), None, 8000),
        ("custom", ("--port", "30000"), 30000, 30000),
    ],
)
def test_requests_go_where_the_server_listens(
    preset: str, args: tuple[str, ...], port: int | None, serves_on: int
) -> None:
    """Probes would ask a port where nobody is, and no replica would ever be ready."""
    assert Runtime(preset=preset, image="x", args=args, port=port).serves_on == serves_on  # type: ignore[arg-type]


def test_two_ports_are_refused() -> None:
    """One of them would be where nobody listens."""
    text = """\
apiVersion: isochrone.dev/v1alpha1
kind: Model
metadata: {name: chat}
spec:
  runtime: {preset: vllm, image: x, args: [--port=9000], port: 8000}
  resources: {cpu: "2", memory: 8Gi}
  accelerators: [{product: NVIDIA-L4, requestsPerSecond: 10}]
  slo: {p95LatencyMs: 250}
"""
    (problem,) = parse("m.yaml", text.encode()).problems
    assert "m.yaml:5:64: port 8000 is not what args say (--port 9000)" in problem.text()
    assert not parse("m.yaml", text.replace("port: 8000", "port: 9000").encode()).problems


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


def test_a_partition_is_another_accelerator_than_the_whole_device() -> None:
    """A replica would be counted, priced or started as if it had the whole device, or none of it."""
    whole = Accelerator(product="NVIDIA-H100", requests_per_second=40.0)
    part = Accelerator(product="NVIDIA-H100", mig_profile="1g.10gb", requests_per_second=5.0)
    model = with_accelerators(whole, part)
    assert model.spec.accelerator_for(PoolKey(product="NVIDIA-H100", market="spot")) is whole
    assert model.spec.accelerator_for(PoolKey(product="NVIDIA-H100", mig_profile="1g.10gb")) is part
    assert model.spec.accelerator_for(L4) is None


def test_a_declared_pool_has_the_key_that_reports_give_it() -> None:
    """A price would be looked up under another name than the pool's, and the pool count as free of charge."""
    pool = AcceleratorPool(product="NVIDIA-H100", vram_gib=80, market="spot", usd_per_device_hour=2.0)
    assert pool.key == PoolKey(product="NVIDIA-H100", mig_profile="", market="spot")


def with_accelerators(*accelerators: Accelerator) -> Model:
    model = a_model()
    spec = type(model.spec)(
        runtime=model.spec.runtime, resources=model.spec.resources, accelerators=accelerators, slo=model.spec.slo
    )
    return Model(api_version=model.api_version, metadata=model.metadata, spec=spec)
