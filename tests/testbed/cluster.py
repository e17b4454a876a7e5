"""A real Kubernetes control plane whose nodes and pods are simulated by kwok.

Everything that decides is the real thing (etcd, API server, controllers, scheduler, RBAC); only the kubelets are not,
so that a cluster with hundreds of GPUs fits in half a gigabyte. All of it listens on loopback alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.testbed.build import Binaries, find_binaries
from tests.testbed.processes import Process, free_ports, wait_for_port

AGENT_MANIFESTS = Path(__file__).parents[2] / "deploy" / "kustomize" / "agent"
AGENT_NAMESPACE = "isochrone-system"
AGENT_SERVICE_ACCOUNT = "isochrone-agent"
MODELS_NAMESPACE = "isochrone-models"

_START_TIMEOUT_S = 60.0
_POLL_PERIOD_S = 0.05
_TOKEN_LIFETIME_S = 24 * 3600
_COMPUTE_SLICES_PER_CARD = 7
_WAITING = """
{{ $now := Now }}
conditions:
- {lastTransitionTime: {{ $now | Quote }}, status: "True", type: Initialized}
- lastTransitionTime: {{ $now | Quote }}
  status: "False"
  type: Ready
  reason: ContainersNotReady
  message: "containers with unready status: [model]"
- lastTransitionTime: {{ $now | Quote }}
  status: "False"
  type: ContainersReady
  reason: ContainersNotReady
  message: "containers with unready status: [model]"
containerStatuses:
{{ range .spec.containers }}
- image: {{ .image | Quote }}
  imageID: ""
  name: {{ .name | Quote }}
  ready: false
  started: false
  restartCount: 0
  state:
    waiting:
      reason: REASON
      message: "MESSAGE"
{{ end }}
phase: Pending
startTime: {{ $now | Quote }}
"""
"""What a kubelet says of a pod whose image it cannot pull."""


class ApiError(RuntimeError):
    """The API server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ControlPlane:
    """One cluster, from nothing to ready in seconds; as a context manager, or with `start` and `stop`.

    Args: name: the cluster's, in its kubeconfig. directory: empty, and kept afterwards; else a temporary one.
    Raises: build.Missing where the binaries cannot be had.
    """

    def __init__(
        self, name: str = "cluster", *, binaries: Binaries | None = None, directory: Path | None = None
    ) -> None:
        self.name = name
        self._binaries = binaries or find_binaries()
        self._keep_directory = directory is not None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"isochrone-{name}-"))
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self._etcd_port, self._etcd_peer_port, self._api_port = free_ports(3)
        self.server_url = f"https://127.0.0.1:{self._api_port}"
        self._certificates = self.directory / "certificates"
        self._tokens: dict[str, str] = {}
        self._processes: dict[str, Process] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return once objects can be made and are acted on.

        Raises: ProcessDied, TimeoutError, with the log's tail; FileExistsError where another cluster's data is.
        """
        if (self.directory / "etcd").exists():
            raise FileExistsError(f"{self.directory} holds another cluster's data; give an empty directory")
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        self._write_tokens()
        self._start_etcd()
        self._start_api_server()
        # The API server has made its certificate by now, and clients are to trust that one alone.
        self._write_kubeconfig(self.kubeconfig, user="admin", token=self._tokens["admin"])
        self._start_controllers()
        self._wait_until_acted_on()

    def stop(self) -> None:
        """End every process, dependants first, and remove the temporary directory. Raises: LeftoverProcess."""
        with contextlib.ExitStack() as stack:
            if not self._keep_directory:
                stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            # A stack runs what was added last first, so clients end before the servers they call.
            for process in self._processes.values():
                stack.callback(process.stop, grace_s=5.0)

    close = stop

    def kill_api_server(self) -> None:
        """End the API server as a crash would; what it had stored stays in etcd."""
        self._processes["kube-apiserver"].kill()

    def restart_api_server(self) -> None:
        """Start it again at the same address, with the same certificate and keys, and wait until it is ready."""
        self._processes["kube-apiserver"].start()
        self._wait_until_ready()

    def log_tail(self, program: str, line_count: int = 20) -> str:
        """The last lines of one program's log, such as `kube-scheduler`."""
        return self._processes[program].log_tail(line_count)

    # Nodes

    def add_gpu_node(
        self,
        name: str,
        *,
        product: str,
        count: int,
        memory_mib: int,
        zone: str,
        region: str,
        spot: bool = False,
        mig: str | None = None,
        cpu: str = "64",
        memory: str = "512Gi",
        instance_type: str = "gpu.simulated",
    ) -> None:
        """Register a node as a kubelet with NVIDIA's device plugin and feature discovery would; it is ready soon after.

        Args: product: as feature discovery writes it, such as `NVIDIA-L4`. count: allocatable devices; with `mig`, MIG
            devices. memory_mib: of one whole card. mig: a profile such as `1g.20gb`; the cards then offer only that
            (strategy "mixed").
        """
        card_count, mig_labels, resource = count, {"nvidia.com/mig.strategy": "none"}, "nvidia.com/gpu"
        if mig is not None:
            card_count, mig_labels = _describe_mig(mig, product=product, device_count=count, card_memory_mib=memory_mib)
            resource = f"nvidia.com/mig-{mig}"
        amounts = {"cpu": cpu, "memory": memory, "pods": "110", resource: str(count)}
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "node.kubernetes.io/instance-type": instance_type,
            "topology.kubernetes.io/region": region,
            "topology.kubernetes.io/zone": zone,
            "karpenter.sh/capacity-type": "spot" if spot else "on-demand",
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": product,
            "nvidia.com/gpu.memory": str(memory_mib),
            "nvidia.com/gpu.count": str(card_count),
            **mig_labels,
        }
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "status": {"capacity": amounts, "allocatable": amounts},
        }
        self.request("POST", "/api/v1/nodes", node)

    def drain_node(self, name: str) -> None:
        """Evict every pod and admit no other, as a handler of spot interruptions does."""
        taint = {"key": "isochrone.dev/interrupted", "effect": "NoExecute"}
        self.request(
            "PATCH",
            f"/api/v1/nodes/{name}",
            {"spec": {"taints": [taint]}},
            content_type="application/merge-patch+json",
        )

    def delete_node(self, name: str) -> None:
        """Take a node away without a word; its pods count as ready until they are collected, a minute later."""
        self.request("DELETE", f"/api/v1/nodes/{name}")

    def wait_for_nodes(self, *, timeout_s: float = 30.0) -> None:
        """Return once every node is Ready and open to pods. Raises: TimeoutError naming those that are not."""
        deadline_s = time.monotonic() + timeout_s
        while waiting := [
            node["metadata"]["name"]
            for node in self.request("GET", "/api/v1/nodes")["items"]
            if not _is_ready(node) or node["spec"].get("taints")
        ]:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not ready after {timeout_s:g} s: {', '.join(waiting)}")
            time.sleep(_POLL_PERIOD_S)

    # Objects and identities

    def request(
        self, method: str, path: str, body: object = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """One request to the API server as its administrator. Raises: ApiError when it refuses."""
        request = urllib.request.Request(
            self.server_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._tokens['admin']}", "Content-Type": content_type},
        )
        context = ssl.create_default_context(cafile=str(self._certificates / "apiserver.crt"))
        try:
            with urllib.request.urlopen(request, timeout=30.0, context=context) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, error.read().decode(errors="replace")) from None
        return dict(json.loads(answer)) if answer.startswith(b"{") else {}

    def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply of one object of any kind the cluster knows, as its administrator. Returns it as stored."""
        version = manifest["apiVersion"]
        group_path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        kinds = self.request("GET", group_path)["resources"]
        kind = next(each for each in kinds if each["kind"] == manifest["kind"] and "/" not in each["name"])
        metadata = manifest["metadata"]
        scope = f"/namespaces/{metadata.get('namespace', 'default')}" if kind["namespaced"] else ""
        return self.request(
            "PATCH",
            f"{group_path}{scope}/{kind['name']}/{metadata['name']}?fieldManager=isochrone-testbed&force=true",
            manifest,
            content_type="application/apply-patch+yaml",
        )

    def agent_kubeconfig(self, namespace: str = MODELS_NAMESPACE) -> Path:
        """Give the agent's service account the rights of `deploy/kustomize/agent`, and no other.

        Args: namespace: where it may run models. Returns: a kubeconfig that acts as that account.
        """
        listing = yaml.safe_load((AGENT_MANIFESTS / "kustomization.yaml").read_text())
        for file in listing["resources"]:
            for manifest in yaml.safe_load_all((AGENT_MANIFESTS / file).read_text()):
                if manifest["kind"] != "Deployment":
                    self.apply(_with_models_namespace(manifest, namespace))
        account = f"/api/v1/namespaces/{AGENT_NAMESPACE}/serviceaccounts/{AGENT_SERVICE_ACCOUNT}"
        asked = {"spec": {"expirationSeconds": _TOKEN_LIFETIME_S}}
        token = self.request("POST", f"{account}/token", asked)["status"]["token"]
        path = self.directory / f"agent-{namespace}.kubeconfig"
        self._write_kubeconfig(path, user=AGENT_SERVICE_ACCOUNT, token=token, namespace=namespace)
        return path

    # Starting

    def _write_tokens(self) -> None:
        groups = {"admin": "system:masters", "system:kube-controller-manager": "", "system:kube-scheduler": ""}
        self._tokens = {user: secrets.token_hex(16) for user in groups}
        lines = [f'{self._tokens[user]},{user},{user},"{group}"' for user, group in groups.items()]
        (self.directory / "tokens.csv").write_text("\n".join(lines) + "\n")

    def _write_kubeconfig(self, path: Path, *, user: str, token: str, namespace: str = "default") -> None:
        cluster = {"server": self.server_url, "certificate-authority": str(self._certificates / "apiserver.crt")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [
                {"name": self.name, "context": {"cluster": self.name, "user": user, "namespace": namespace}},
            ],
            "current-context": self.name,
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def _launch(self, name: str, program: Path, *flags: str) -> Process:
        process = Process(
            name,
            [str(program), *flags],
            log_file=self.directory / "logs" / f"{name}.log",
            # kwok reads its user's own configuration from there; nothing of the machine may leak in.
            environment={"HOME": str(self.directory)},
        )
        self._processes[name] = process
        process.start()
        return process

    def _start_etcd(self) -> None:
        client_url = f"http://127.0.0.1:{self._etcd_port}"
        peer_url = f"http://127.0.0.1:{self._etcd_peer_port}"
        etcd = self._launch(
            "etcd",
            self._binaries.etcd,
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            # Safe against a killed process, though not against a power cut, and ten times as fast.
            "--unsafe-no-fsync",
        )
        wait_for_port(etcd, self._etcd_port, timeout_s=_START_TIMEOUT_S)

    def _start_api_server(self) -> None:
        # The API server makes a key pair for TLS before it reads the one for service accounts, so one serves for both.
        key = self._certificates / "apiserver.key"
        self._launch(
            "kube-apiserver",
            self._binaries.kube_apiserver,
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._api_port}",
            f"--cert-dir={self._certificates}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        self._wait_until_ready()

    def _start_controllers(self) -> None:
        for name, program, flags in (
            (
                "kube-controller-manager",
                self._binaries.kube_controller_manager,
                [
                    "--controllers=*",
                    "--use-service-account-credentials",
                    f"--service-account-private-key-file={self._certificates / 'apiserver.key'}",
                ],
            ),
            ("kube-scheduler", self._binaries.kube_scheduler, []),
        ):
            config = self.directory / f"{name}.kubeconfig"
            self._write_kubeconfig(config, user=f"system:{name}", token=self._tokens[f"system:{name}"])
            self._launch(
                name,
                program,
                f"--kubeconfig={config}",
                "--leader-elect=false",
                # They serve nothing but metrics, which nobody here reads.
                "--secure-port=0",
                # The default of 20 requests a second makes the controllers' own start take five seconds.
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
                *flags,
            )
        self._launch(
            "kwok",
            self._binaries.kwok,
            f"--kubeconfig={self.kubeconfig}",
            f"--config={self._write_stages()}",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-lease-duration-seconds=40",
        )

    def miss_images(self, pattern: str) -> None:
        """From now on no image that the regular expression matches can be pulled; "" lets all be.

        What runs goes on. Pods that wait for such an image say so in a kubelet's words, and start once it is there.
        """
        kubelets = self._processes["kwok"]
        kubelets.stop()
        self._write_stages(pattern)
        # Else those that start wait until the leases of those that ended run out.
        self.request("DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
        kubelets.start()

    def _write_stages(self, missing: str = "") -> Path:
        stages = list(yaml.safe_load_all(self._binaries.kwok_stages.read_text()))
        if missing:
            (ready,) = [one for one in stages if one["metadata"]["name"] == "pod-ready"]
            ready["spec"]["selector"]["matchExpressions"].append({"key": _image(missing), "operator": "DoesNotExist"})
            stages += _image_stages(missing)
        path = self.directory / "kwok-stages.yaml"
        path.write_text(yaml.safe_dump_all(stages, sort_keys=False))
        return path

    def _check(self) -> None:
        for process in self._processes.values():
            process.check()

    def _wait_until_ready(self) -> None:
        """Return once the API server says so itself."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            self._processes["kube-apiserver"].check()
            with contextlib.suppress(OSError, ApiError):
                self.request("GET", "/readyz")
                return
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the API server is not ready; its log ends:\n{self.log_tail('kube-apiserver')}")
            time.sleep(_POLL_PERIOD_S)

    def _wait_until_acted_on(self) -> None:
        """Return once the controllers have given the default namespace its account; no pod is admitted without."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            self._check()
            with contextlib.suppress(ApiError):
                self.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
                return
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no controllers; their log ends:\n{self.log_tail('kube-controller-manager')}")
            time.sleep(_POLL_PERIOD_S)


def _image(pattern: str) -> str:
    return f".spec.containers.[] | select(.image | test({json.dumps(pattern)})) | .image"


def _image_stages(pattern: str) -> list[dict[str, Any]]:
    """A kubelet's two steps with an image that is not there: it fails to pull it, then waits before the next try."""
    failed = r"""failed to resolve reference \"{{ .image }}\": not found"""
    steps = {
        "ErrImagePull": ("NotIn", ["ErrImagePull", "ImagePullBackOff"], failed),
        "ImagePullBackOff": ("In", ["ErrImagePull"], r"""Back-off pulling image \"{{ .image }}\": ErrImagePull"""),
    }
    return [
        {
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": "Stage",
            "metadata": {"name": f"pod-{reason.lower()}"},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
                "selector": {
                    "matchExpressions": [
                        {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                        {"key": ".status.phase", "operator": "In", "values": ["Pending"]},
                        {"key": _image(pattern), "operator": "Exists"},
                        {
                            "key": ".status.containerStatuses.[].state.waiting.reason",
                            "operator": operator,
                            "values": before,
                        },
                    ]
                },
                "delay": {"durationMilliseconds": 200},
                "next": {"statusTemplate": _WAITING.replace("REASON", reason).replace("MESSAGE", message)},
            },
        }
        for reason, (operator, before, message) in steps.items()
    ]


def _is_ready(node: Mapping[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"].get("conditions", []))


def _describe_mig(profile: str, *, product: str, device_count: int, card_memory_mib: int) -> tuple[int, dict[str, str]]:
    """How many cards carry so many devices of a MIG profile, and the labels feature discovery gives their node."""
    match = re.fullmatch(r"(\d+)g\.(\d+)gb", profile)
    if match is None:
        raise ValueError(f"MIG profile {profile!r}: expected one such as 1g.20gb")
    slice_count, memory_gib = int(match[1]), int(match[2])
    # Profiles are named in round numbers: four 1g.20gb fill a card of 79.6 GiB.
    per_card = min(_COMPUTE_SLICES_PER_CARD // slice_count, round(card_memory_mib / 1024 / memory_gib))
    if per_card == 0:
        raise ValueError(f"MIG profile {profile}: does not fit a card of {card_memory_mib} MiB")
    prefix = f"nvidia.com/mig-{profile}"
    return -(-device_count // per_card), {
        "nvidia.com/mig.strategy": "mixed",
        f"{prefix}.count": str(device_count),
        f"{prefix}.memory": str(min(memory_gib * 1024, card_memory_mib)),
        f"{prefix}.product": f"{product}-MIG-{profile}",
    }


def _with_models_namespace(manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The manifest with another models namespace, as a kustomize overlay would write it."""
    metadata = dict(manifest["metadata"])
    if metadata.get("namespace") == MODELS_NAMESPACE:
        metadata["namespace"] = namespace
    if manifest["kind"] == "Namespace" and metadata["name"] == MODELS_NAMESPACE:
        metadata["name"] = namespace
    return {**manifest, "metadata": metadata}
