"""`python -m tests.testbed build | up | demo`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.testbed import build


def main(arguments: Sequence[str]) -> int:
    """Carry out one subcommand. Returns the exit status."""
    # The demonstration has options of its own.
    if arguments and arguments[0] == "demo" and importlib.util.find_spec("tests.testbed.demo"):
        return int(importlib.import_module("tests.testbed.demo").main(list(arguments[1:])) or 0)
    parser = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build or install the real components that are missing")
    up = commands.add_parser("up", help="start control planes with GPU nodes, until Ctrl-C")
    up.add_argument("--clusters", type=int, default=1, metavar="N", help="how many (default 1; each takes 0.5 GB)")
    if importlib.util.find_spec("tests.testbed.demo"):
        commands.add_parser("demo", help="the product on real control planes")
    options = parser.parse_args(arguments)
    if options.command == "build":
        return build.main()
    return _up(options.clusters)


def _up(cluster_count: int) -> int:
    from tests.testbed.cluster import ControlPlane

    try:
        binaries = build.find_binaries()
    except build.Missing as missing:
        print(f"testbed: {missing}", file=sys.stderr)
        return 1
    # A `kill` ends it as Ctrl-C does, so that nothing is left in either case.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        planes = [
            stack.enter_context(contextlib.closing(ControlPlane(f"cluster-{number}", binaries=binaries)))
            for number in range(1, cluster_count + 1)
        ]
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(ControlPlane.start, planes))
        for plane in planes:
            plane.add_gpu_node(
                "l4-0", product="NVIDIA-L4", count=4, memory_mib=23034, zone=f"{plane.name}-a", region=plane.name
            )
            plane.wait_for_nodes()
            print(f"{plane.name}: export KUBECONFIG={plane.kubeconfig}", flush=True)
        print("Ctrl-C ends them", flush=True)
        while True:
            time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
