"""Custom resource definitions of the standards that traffic speaks, from their Go modules, and one that stands in.

They are downloaded once into Go's own module cache and checked against the hashes here; nothing of them is kept in the
repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from tests.testbed.build import Missing
from tests.testbed.cluster import ApiError, ControlPlane

MODULES = {
    "sigs.k8s.io/gateway-api": ("v1.6.1", "h1:mock6phZbI6rvZerwrVNk7hVNymQgHo+6sJ81Ia7ftY=", "config/crd/standard"),
    "sigs.k8s.io/mcs-api": ("v0.5.2", "h1:N+vrRiCIb0WJ0dxbBo7VfNv2WJigOHEo4gsLXpffVs8=", "config/crd"),
    "sigs.k8s.io/external-dns": ("v0.22.0", "h1:+ASJ3KF7DLqHo2LsG8Qinuh2J389MS86I19i/r8ewUc=", "config/crd/standard"),
}
"""Module -> version, hash as go.sum has it, directory of the definitions."""
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WANTED = {
    "gateways.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io",
    "serviceexports.multicluster.x-k8s.io",
    "serviceimports.multicluster.x-k8s.io",
    "dnsendpoints.externaldns.k8s.io",
}


def find_crds() -> list[dict[str, Any]]:
    """The real definitions. Raises: Missing."""
    found = []
    for module, (version, digest, directory) in MODULES.items():
        for file in sorted((_downloaded(module, version, digest) / directory).glob("*.yaml")):
            for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
                if document and document["metadata"]["name"] in WANTED:
                    found.append(document)
    absent = WANTED - {document["metadata"]["name"] for document in found}
    if absent:
        raise Missing(f"custom resource definitions: {', '.join(sorted(absent))} are not in their modules")
    return found


def _downloaded(module: str, version: str, digest: str) -> Path:
    go = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/go/bin"]))
    if go is None:
        raise Missing(f"{module}: no Go to download it with; install Go, or run `make testbed` where there is network")
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "on"}
    result = subprocess.run(
        [go, "mod", "download", "-json", f"{module}@{version}"],
        cwd=Path.home(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        raise Missing(f"{module}: `go mod download` failed ({result.stderr.strip()[-200:]})") from None
    if answer.get("Error") or answer.get("Sum") != digest:
        raise Missing(f"{module} {version}: {answer.get('Error') or 'its content is not what it was'}")
    return Path(answer["Dir"])


def stand_in_pools() -> list[dict[str, Any]]:
    """STAND-INS, written from the documented fields of the inference extension, whose module cannot be had.

    InferencePool (inference.networking.k8s.io/v1) and InferencePoolImport (inference.networking.x-k8s.io/v1alpha1). An
    object that these accept may still be refused by the real definitions.
    """
    pool = {
        "spec": {
            "type": "object",
            "required": ["selector", "targetPorts"],
            "properties": {
                "selector": {
                    "type": "object",
                    "required": ["matchLabels"],
                    "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
                },
                "targetPorts": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 8,
                    "items": {
                        "type": "object",
                        "required": ["number"],
                        "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 65535}},
                    },
                },
            },
        }
    }
    exporting = {
        "type": "array",
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    }
    controllers = {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "exportingClusters": exporting},
        },
    }
    imported = {"status": {"type": "object", "properties": {"controllers": controllers}}}
    return [
        _definition("inference.networking.k8s.io", "v1", "InferencePool", pool),
        _definition("inference.networking.x-k8s.io", "v1alpha1", "InferencePoolImport", imported),
    ]


def _definition(group: str, version: str, kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {
                "api-approved.kubernetes.io": "unapproved, a stand-in for tests",
                "isochrone.dev/stand-in": "written from the documented fields",
            },
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                }
            ],
        },
    }


def install(plane: ControlPlane, definitions: list[dict[str, Any]]) -> None:
    """Add definitions, and wait until the API server serves them."""
    for one in definitions:
        try:
            plane.request("POST", CRDS, one)
        except ApiError as error:
            if error.status != 409:
                raise
    deadline_s = time.monotonic() + 20
    for one in definitions:
        while True:
            status = plane.request("GET", f"{CRDS}/{one['metadata']['name']}").get("status", {})
            conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
            if conditions.get("Established") == "True":
                break
            assert time.monotonic() < deadline_s, f"{one['metadata']['name']}: {conditions}"
            time.sleep(0.05)
    time.sleep(1.0)  # discovery follows a moment later
