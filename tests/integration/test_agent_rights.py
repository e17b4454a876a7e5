"""What the shipped Role lets the agent do, by the API server's own word: a golden list, and refusals of the rest."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.testbed.cluster import AGENT_MANIFESTS, AGENT_NAMESPACE, MODELS_NAMESPACE, ControlPlane
from tests.testbed.fixtures import require_kubernetes

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(120)]
GOLDEN = Path(__file__).parent / "agent_rights.yaml"
NAMESPACES = ("default", "kube-system", "isochrone-system", MODELS_NAMESPACE)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane("rights", binaries=require_kubernetes()) as running:
        yield running


async def ask(plane: ControlPlane, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """One request with the agent's own token."""
    config = yaml.safe_load(plane.agent_kubeconfig().read_text())
    token = config["users"][0]["user"]["token"]
    tls = ssl.create_default_context(cafile=config["clusters"][0]["cluster"]["certificate-authority"])
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session,
        session.request(
            method, plane.server_url + path, json=body, headers={"Authorization": f"Bearer {token}"}
        ) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if text.startswith("{") else {}


async def rights(plane: ControlPlane, namespace: str) -> dict[str, list[str]]:
    """Resource -> verbs in a namespace, by a SelfSubjectRulesReview; what everyone may ask of himself is left out."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    status, answer = await ask(plane, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    assert status == 201, answer
    found: dict[str, set[str]] = {}
    for rule in answer["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                if group.endswith((".authentication.k8s.io", "authorization.k8s.io", "authentication.k8s.io")):
                    continue
                one = f"{resource}.{group}".rstrip(".")
                one += "".join(f"/{name}" for name in rule.get("resourceNames", []))
                found.setdefault(one, set()).update(rule["verbs"])
    return {name: sorted(verbs) for name, verbs in sorted(found.items())}


async def test_what_the_agent_may_do_is_what_was_reviewed(plane: ControlPlane) -> None:
    """Whoever takes over an agent would take over its cluster."""
    found = {namespace: await rights(plane, namespace) for namespace in NAMESPACES}
    assert found == yaml.safe_load(GOLDEN.read_text())
    assert "*" not in json.dumps(found)


async def test_the_agents_own_pod_is_accepted_where_pod_security_is_restricted(plane: ControlPlane) -> None:
    """The agent could not be installed where clusters are kept well."""
    plane.agent_kubeconfig()
    manifest = yaml.safe_load((AGENT_MANIFESTS / "deployment.yaml").read_text())
    template = manifest["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent"}, "spec": template["spec"]}
    made = plane.request("POST", f"/api/v1/namespaces/{AGENT_NAMESPACE}/pods?dryRun=All", pod)
    mounted = {one["name"] for one in made["spec"]["containers"][0]["volumeMounts"]}
    assert {"state", "limits", "tls"} <= mounted
    listing = yaml.safe_load((AGENT_MANIFESTS / "kustomization.yaml").read_text())
    files = [*listing["resources"], *(f for one in listing["configMapGenerator"] for f in one.get("files", []))]
    assert all((AGENT_MANIFESTS / name).exists() for name in files)


REFUSED: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", f"/api/v1/namespaces/{MODELS_NAMESPACE}/secrets", None),
    ("GET", f"/api/v1/namespaces/{MODELS_NAMESPACE}/secrets/any", None),
    ("GET", "/api/v1/namespaces/isochrone-system/secrets/isochrone-agent-tls", None),
    ("GET", "/api/v1/secrets", None),
    ("POST", "/api/v1/namespaces/default/pods", {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}),
    ("POST", f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods", {"kind": "Pod", "metadata": {"name": "p"}}),
    ("POST", "/apis/apps/v1/namespaces/default/deployments", {"kind": "Deployment", "metadata": {"name": "d"}}),
    ("POST", f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods/any/exec?command=sh&stdout=true", None),
    ("GET", f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods/any/exec?command=sh&stdout=true", None),
    ("POST", f"/api/v1/namespaces/{MODELS_NAMESPACE}/serviceaccounts/default/token", {"spec": {}}),
    (
        "POST",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{MODELS_NAMESPACE}/rolebindings",
        {"kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}},
    ),
    (
        "PATCH",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{MODELS_NAMESPACE}/roles/isochrone-agent",
        {"rules": []},
    ),
    ("DELETE", f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments", None),
    ("DELETE", "/api/v1/nodes/any", None),
    ("PATCH", f"/api/v1/namespaces/{MODELS_NAMESPACE}", {"metadata": {"labels": {"x": "y"}}}),
    ("GET", "/api/v1/namespaces/kube-system/configmaps", None),
    ("GET", "/api/v1/namespaces/kube-system/configmaps/other", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REFUSED, ids=[f"{method}-{path}" for method, path, _ in REFUSED])
async def test_the_rest_is_refused_by_the_api_server(
    plane: ControlPlane, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """A stolen agent token would open secrets, exec or other namespaces of the cluster."""
    status, answer = await ask(plane, method, path, body)
    assert status == 403, answer
    assert "isochrone-agent" in answer["message"], "refused for who asks, and not for what"
