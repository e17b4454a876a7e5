"""`make demo-kubernetes`: the product on three real control planes, until Ctrl-C."""

from __future__ import annotations

import argparse
import time

from tests.testbed.federation import Federation
from tests.testbed.small_world import MODEL, POLICY, TOKEN


def main(arguments: list[str]) -> None:
    """Start everything, apply a policy, and tell what happens."""
    parser = argparse.ArgumentParser(prog="make demo-kubernetes", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end when the placement is ready, instead of waiting")
    once = parser.parse_args(arguments).once
    print("starting Mosquitto, three control planes with GPU nodes, a controller and three agents …", flush=True)
    with Federation() as federation:
        federation.apply("chat.yaml", MODEL, POLICY)
        federation.wait(lambda: ready(federation), "placement")
        for row in federation.get("/v1/placements")["items"]:
            print(f"  {row['model']} in {row['cluster']}: {row['ready']}/{row['desired']}; {row['reason']}")
        print(f"map: {federation.url}/signin?token={TOKEN}")
        for name, plane in federation.planes.items():
            print(f"  kubectl --kubeconfig {plane.kubeconfig} -n isochrone-models get deployments   # {name}")
        if once:
            return
        print("Ctrl-C ends everything", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("ending …")


def ready(federation: Federation) -> bool:
    """Whether all that is wanted is ready."""
    models = federation.get("/v1/overview")["models"]
    return bool(models and models[0]["replicas_desired"] >= 3) and all(
        one["replicas_ready"] == one["replicas_desired"] for one in models
    )
