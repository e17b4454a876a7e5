"""The OpenAPI document beside what a running controller really answers, by thousands of requests made from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY, TOKEN

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
SEED = 1
EXAMPLES = 5
"""Besides those at the bounds of every parameter and field, which are thousands."""
DIFF = "/v1/diff"
"""Takes the same body as /v1/policies, and plans for each: its bounds are tried there."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_api_does_what_its_document_says(tmp_path: Path) -> None:
    """Clients that are generated from the document would send what is refused, or get what they cannot read."""
    with Fleet(tmp_path / "fleet") as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
        for which in (["--exclude-path", DIFF], ["--include-path", DIFF, "--phases", "examples,fuzzing"]):
            command = [str(SCHEMATHESIS), "--no-color", "run", f"{fleet.url}/openapi.json", "--checks", "all", *which]
            command += ["--seed", str(SEED), "--max-examples", str(EXAMPLES), "--no-shrink", "--continue-on-failure"]
            command += ["--request-timeout", "30", "--header", f"Authorization: Bearer {TOKEN}"]
            run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
        found = [one["name"] for one in fleet.get("/v1/clusters")["items"]]
        assert {"fra", "iad", "mad"} <= set(found), "the controller is as well as before"
