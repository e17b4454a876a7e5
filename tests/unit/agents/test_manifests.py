"""What is applied for a model: a golden file per preset, and what must hold of all of them.

`python -m tests.unit.agents.test_manifests` writes the golden files anew; read their difference before you keep it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.inventory.offers import Access, Term
from agents.manifests import build, presets
from agents.manifests.build import ClusterSite, Destination, Object, Order
from federation.wire import messages
from tests.builders import L4, L4_SPOT

GOLDEN = Path(__file__).parent / "golden"
ACCESS = Access(
    resource="nvidia.com/gpu", terms=(Term(key="nvidia.com/gpu.product", operator="In", values=("NVIDIA-L4",)),)
)
DYNAMIC = Access(
    device_class="gpu.nvidia.com",
    expression='device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].productName == "NVIDIA L4"',
)
SITE = ClusterSite(
    namespace="isochrone-models",
    gateways=("gateway-system",),
    model_store=(Destination(cidr="10.20.0.0/16", ports=(443, 9000)),),
    tolerated=("dedicated",),
)
ARGUMENTS = {
    "vllm": ("--model", "example/chat-8b"),
    "triton": ("--model-repository=/models",),
    "torchserve": ("torchserve", "--start", "--foreground", "--models", "chat=chat.mar"),
    "tensorflow-serving": ("--model_base_path=/models/chat",),
    "nemo": (),
    "custom": ("serve", "--listen=:8080"),
}
PORTS = {"torchserve": 8080, "tensorflow-serving": 8501, "custom": 8080}


def an_order(preset: str, **fields: Any) -> Order:
    """Two replicas of two devices each, which may become four."""
    values: dict[str, Any] = {
        "model": "chat-8b",
        "pool": L4,
        "replicas": 2,
        "devices": 2,
        "runtime": preset,
        "image": f"example/{preset}@sha256:{'0' * 64}",
        "args": ARGUMENTS[preset],
        "port": PORTS.get(preset, 8000),
        "cpu": "8",
        "memory": "32Gi",
        "min_vram_gib": 20.0,
        "warmup_s": 300.0,
        "burst_replicas": 2,
        "vertical_scaling": "off",
    }
    ours: dict[str, Any] = {
        "access": ACCESS,
        "site": SITE,
        "plan": "3.17",
        "replicas": 2,
        "most": 4,
        "autoscaled": True,
    }
    given = {key: fields.pop(key) for key in list(fields) if key in ours}
    return Order(workload=messages.Workload(**(values | fields)), **(ours | given))


class _Plain(yaml.SafeDumper):
    """Every value written out where it is."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text(made: tuple[Object, ...]) -> str:
    return str(yaml.dump_all(made, Dumper=_Plain, sort_keys=False, width=120))


def golden() -> dict[str, str]:
    """File name -> content: every preset, and one with devices by Dynamic Resource Allocation on spot."""
    files = {f"{name}.yaml": text(build.objects(an_order(name))) for name in presets.PRESETS}
    dynamic = an_order(
        "vllm", access=DYNAMIC, pool=L4_SPOT, autoscaled=False, burst_replicas=0, vertical_scaling="none"
    )
    return files | {"vllm-dynamic-spot.yaml": text(build.objects(dynamic))}


@pytest.mark.parametrize("name", sorted(golden()))
def test_what_is_applied_is_what_was_reviewed(name: str) -> None:
    """A change of one word restarts every replica of every customer: it must be meant."""
    assert (GOLDEN / name).read_text() == golden()[name]


@pytest.mark.parametrize("preset", sorted(presets.PRESETS))
def test_guards_come_before_pods_and_nothing_carries_a_token(preset: str) -> None:
    """A model server that is taken over would find the cluster's API open, or the network."""
    made = build.objects(an_order(preset))
    kinds = [one["kind"] for one in made]
    assert kinds.index("NetworkPolicy") < kinds.index("Deployment")
    assert made[0]["automountServiceAccountToken"] is False
    pod = made[kinds.index("Deployment")]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == made[0]["metadata"]["name"]
    policy = made[kinds.index("NetworkPolicy")]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(
        "cidr" not in str(peer) or "0.0.0.0/0" not in str(peer) for rule in policy["egress"] for peer in rule["to"]
    )


def container(order: Order) -> dict[str, Any]:
    found: dict[str, Any] = build.deployment(order)["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("preset", "arguments", "devices", "expected"),
    [
        ("vllm", (), 1, ["--port=8000"]),
        ("vllm", (), 4, ["--port=8000", "--tensor-parallel-size=4"]),
        ("vllm", ("--tensor-parallel-size", "2", "--port=8000"), 4, ["--tensor-parallel-size", "2", "--port=8000"]),
        ("vllm", ("-tp", "2"), 4, ["-tp", "2", "--port=8000"]),
        ("vllm", ("--tensor_parallel_size", "2"), 4, ["--tensor_parallel_size", "2", "--port=8000"]),
        ("vllm", ("--tensor_parallel_size=2", "--port=1"), 4, ["--tensor_parallel_size=2", "--port=1"]),
        ("vllm", ("--pipeline-parallel-size", "4"), 4, ["--pipeline-parallel-size", "4", "--port=8000"]),
        ("vllm", ("-pp=2",), 8, ["-pp=2", "--port=8000", "--tensor-parallel-size=4"]),
        (
            "vllm",
            ("--pipeline_parallel_size=2", "--data-parallel-size", "2"),
            8,
            ["--pipeline_parallel_size=2", "--data-parallel-size", "2", "--port=8000", "--tensor-parallel-size=2"],
        ),
        ("vllm", ("--tensor=2",), 4, ["--tensor=2", "--port=8000"]),
        ("vllm", ("--tensor-parallel", "2"), 4, ["--tensor-parallel", "2", "--port=8000"]),
        ("vllm", ("--pipeline_parallel=2",), 8, ["--pipeline_parallel=2", "--port=8000", "--tensor-parallel-size=4"]),
        ("vllm", ("-pcp", "2"), 8, ["-pcp", "2", "--port=8000", "--tensor-parallel-size=4"]),
        ("vllm", ("-dcp", "2"), 8, ["-dcp", "2", "--port=8000", "--tensor-parallel-size=8"]),
        ("vllm", ("--tensor-parallel-size=$(TP)",), 4, ["--tensor-parallel-size=$(TP)", "--port=8000"]),
        ("vllm", ("-pp=$(PP)",), 4, ["-pp=$(PP)", "--port=8000"]),
        ("vllm", ("--tool-call-parser=x",), 2, ["--tool-call-parser=x", "--port=8000", "--tensor-parallel-size=2"]),
        (
            "vllm",
            ("--speculative-config", '{"num_speculative_tokens": 3, "draft_tensor_parallel_size": 1}'),
            2,
            [
                "--speculative-config",
                '{"num_speculative_tokens": 3, "draft_tensor_parallel_size": 1}',
                "--port=8000",
                "--tensor-parallel-size=2",
            ],
        ),
        ("vllm", ("-pp", "3"), 4, ["-pp", "3", "--port=8000"]),
        ("vllm", ("--config", "/etc/vllm.yaml"), 4, ["--config", "/etc/vllm.yaml", "--port=8000"]),
        ("triton", (), 1, ["tritonserver", "--http-port=8000", "--model-repository=/var/cache/model"]),
        ("triton", ("tritonserver", "--model-store=/m"), 1, ["tritonserver", "--model-store=/m", "--http-port=8000"]),
        ("tensorflow-serving", ("--model_name=x",), 1, ["--model_name=x", "--rest_api_port=8000"]),
        ("custom", ("a", "b"), 8, ["a", "b"]),
    ],
)
def test_arguments_follow_from_the_intent_unless_the_user_says_them(
    preset: str, arguments: tuple[str, ...], devices: int, expected: list[str]
) -> None:
    """A user's own flag would be given twice, and the server would refuse to start."""
    order = an_order(preset, args=arguments, devices=devices, port=8000)
    assert container(order)["args"] == expected


def test_tensorflow_is_asked_for_the_model_that_it_was_told_to_serve() -> None:
    """The readiness probe would ask for another model, and no replica would become ready."""
    order = an_order("tensorflow-serving", args=("--model_name", "other"))
    assert container(order)["readinessProbe"]["httpGet"]["path"] == "/v1/models/other"


def test_a_slow_model_is_given_three_times_its_warm_up_to_start() -> None:
    """A model that takes half an hour to load would be killed for ever before it is ready."""
    probe = container(an_order("vllm", warmup_s=1800.0))["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 5400


@pytest.mark.parametrize(("burst", "most", "expected"), [(2, 4, 4), (2, 3, 3), (0, 9, 2), (5, 1, 2)])
def test_an_autoscaler_stays_between_the_plan_and_the_local_limit(burst: int, most: int, expected: int) -> None:
    """A busy cluster would take devices that its owner keeps, or fall below what was planned."""
    spec = build.horizontal_autoscaler(an_order("vllm", burst_replicas=burst, most=most))["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, expected)


def test_another_claim_has_another_name() -> None:
    """A template cannot be changed: to ask for more memory would be refused for ever."""
    one, two = (an_order("vllm", access=DYNAMIC, min_vram_gib=gib) for gib in (20.0, 40.0))
    assert build.claim_template_name(one) != build.claim_template_name(two)
    assert build.claim_template_name(one) == build.claim_template_name(an_order("custom", access=DYNAMIC))


def main() -> None:
    """Write the golden files."""
    for name, content in golden().items():
        (GOLDEN / name).write_text(content)


if __name__ == "__main__":
    main()


def test_an_owners_labels_keep_replicas_off_spot_or_on_it() -> None:
    """A replica that was placed on demand would be taken back, as only the owner knows that its node can be."""
    said = ("example.com/spot", "example.com/life=spot")
    (steady,) = build.market_terms("on-demand", said)
    assert {"key": "example.com/spot", "operator": "DoesNotExist"} in steady
    assert {"key": "example.com/life", "operator": "NotIn", "values": ["spot"]} in steady
    spot = build.market_terms("spot", said)
    assert [{"key": "example.com/spot", "operator": "Exists"}] in spot
    assert [{"key": "example.com/life", "operator": "In", "values": ["spot"]}] in spot
    assert all(one not in build.market_terms("reserved", said) for one in spot)


def test_replicas_may_ask_for_names_wherever_dns_is() -> None:
    """A model that fetches its weights by name would never start on OpenShift, or on GKE with Cloud DNS."""
    order = an_order("vllm")
    site = replace(order.site, dns=(Destination(cidr="10.96.0.10/32", ports=(53,)),))
    egress = build.network_policy(replace(order, site=site))["spec"]["egress"]
    open_to = {
        (
            next(iter(to["namespaceSelector"]["matchLabels"].values()))
            if "podSelector" in to
            else to["ipBlock"]["cidr"],
            port["protocol"],
            port["port"],
        )
        for rule in egress
        for to in rule["to"]
        for port in rule["ports"]
    }
    for protocol in ("UDP", "TCP"):
        assert ("kube-system", protocol, 53) in open_to
        assert ("openshift-dns", protocol, 5353) in open_to
        assert ("169.254.0.0/16", protocol, 53) in open_to, "whatever address NodeLocal DNSCache was given"
        assert ("10.96.0.10/32", protocol, 53) in open_to
    assert not any(where == "169.254.169.254/32" and port == 80 for where, _, port in open_to), "no metadata"
