"""The command line as people and scripts use it: its own process, its output, its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.state.reduce import Note
from federation.traffic.status import GatewayStatus
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY, TOKEN

pytestmark = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]
STRICTER = {**MODEL, "spec": {**MODEL["spec"], "slo": {"p95LatencyMs": 100}}}


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """The caller's, less what it may know of a controller of its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ISOCHRONE_")}
    return {**inherited, "ISOCHRONE_CONFIG": str(tmp_path / "config.json"), **more}


def run(*arguments: str, cwd: Path, env: dict[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """One command."""
    command = [sys.executable, "-m", "federation.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=60)


@pytest.fixture
def isochrone(fleet: Fleet, tmp_path: Path) -> Run:
    """A command against the fleet."""
    env = environment(tmp_path, ISOCHRONE_SERVER=fleet.url, ISOCHRONE_TOKEN=TOKEN)
    return lambda *arguments, stdin="": run(*arguments, cwd=tmp_path, env=env, stdin=stdin)


def table(text: str) -> list[list[str]]:
    """Cells of a table; columns are at least two spaces apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_get_clusters_is_a_table_as_kubectl_prints(isochrone: Run) -> None:
    """Scripts that read columns would break, and operators would not see which cluster is ready."""
    done = isochrone("get", "clusters")
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert rows[0] == ["NAME", "STATUS", "PROVIDER", "REGION", "ACCELERATORS", "REPLICAS", "AGE"]
    assert [row[:6] for row in rows[1:]] == [
        ["fra", "Ready", "kwok", "fra", "8", "7"],
        ["iad", "Ready", "kwok", "iad", "8", "1"],
        ["mad", "Ready", "kwok", "mad", "8", "0"],
    ]


@pytest.mark.parametrize(
    ("arguments", "header", "first"),
    [
        (("get", "models"), "NAME", ["chat-8b", "ok", "8/8", "64.0", "0.0", "0.0", "4.30"]),
        (("get", "mo", "--no-headers"), "chat-8b", None),
        (("get", "cells"), "NAME", ["Berlin", "DE", "30.0", "0.0"]),
        (("get", "placements"), "MODEL", ["chat-8b", "fra", "NVIDIA-L4/on-demand", "7/7", "3.50"]),
        (("get", "policies"), "NAME", ["chat.yaml", "2", "2", "0"]),
        (("get", "plans"), "PLAN", None),
        (("get", "prices"), "CLUSTER", None),
        (("where", "L4", "--devices", "1"), "CLUSTER", None),
        (("get", "events"), "ID", None),
    ],
)
def test_every_kind_can_be_listed(
    isochrone: Run, arguments: tuple[str, ...], header: str, first: list[str] | None
) -> None:
    """A kind of object would be visible on the map only."""
    done = isochrone(*arguments)
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert rows[0][0] == header
    if first is not None:
        assert rows[1][: len(first)] == first


@pytest.mark.parametrize("kind", ["clusters", "models", "cells", "placements", "plans", "events", "policies"])
def test_json_and_yaml_say_the_same(isochrone: Run, kind: str) -> None:
    """A script that changes its format would lose fields."""
    as_json, as_yaml = (isochrone("get", kind, "-o", form) for form in ("json", "yaml"))
    one, other = json.loads(as_json.stdout)["items"], yaml.safe_load(as_yaml.stdout)["items"]
    assert [sorted(item) for item in one] == [sorted(item) for item in other]
    assert one


def test_one_thing_and_its_name(isochrone: Run) -> None:
    """Pipelines over names could not be built, as with kubectl."""
    assert json.loads(isochrone("get", "cluster", "fra", "-o", "json").stdout)["name"] == "fra"
    assert isochrone("get", "cl", "-o", "name").stdout.split() == ["cluster/fra", "cluster/iad", "cluster/mad"]


def test_describe_tells_the_events_of_a_thing(isochrone: Run) -> None:
    """An operator would have to search all events for those of one cluster."""
    done = isochrone("describe", "cluster", "fra")
    assert done.returncode == 0, done.stderr
    assert "worst_state: ok" in done.stdout
    assert "Z  Normal  ClusterReady  fra reports" in done.stdout.partition("events:")[2]
    newest = isochrone("get", "plans", "-o", "name").stdout.split()[0].removeprefix("plan/")
    told = isochrone("describe", "plan", newest).stdout
    assert "serves 56.0 requests per second" in told
    assert "Normal  Committed" in told


def test_explain_says_why_here_and_why_not_there(isochrone: Run) -> None:
    """Nobody could argue with a placement, because its reasons and prices would be hidden."""
    done = isochrone("explain", "placement", "chat-8b")
    assert done.returncode == 0, done.stderr
    rows = {row[0]: row for row in table(done.stdout) if row}
    assert rows["fra"][2] == "Placed"
    assert rows["mad"][2] == "Dearer"
    assert "one replica more would add 0.90 USD/h" in rows["mad"][3]
    only = isochrone("explain", "placement", "chat-8b", "-c", "mad")
    assert "Dearer" in only.stdout and "Placed" not in only.stdout


def test_explain_says_why_a_cells_requests_go_where_they_go(isochrone: Run) -> None:
    """Nobody could tell why users of one place are served from far away."""
    done = isochrone("explain", "cell", "chat-8b", "New York")
    assert done.returncode == 0, done.stderr
    assert "New York" in done.stdout and "Serves" in done.stdout and "distance" in done.stdout
    view = json.loads(isochrone("explain", "cell", "chat-8b", "Berlin", "-o", "json").stdout)
    assert view["ways"][0]["cluster"] == "fra"
    wrong = isochrone("explain", "cell", "chat-8b", "Berln")
    assert wrong.returncode == 5
    assert "did you mean Berlin?" in wrong.stderr


def test_routes_say_who_is_served_where(isochrone: Run) -> None:
    """An operator could not tell which cluster a user's requests reach."""
    rows = {row[1]: row[3] for row in table(isochrone("routes").stdout)}
    assert rows["Berlin"] == "fra 100 %"
    nearest = isochrone("routes", "--model", "chat-8b", "--lat", "52", "--lon", "13")
    assert nearest.stdout.startswith("decided for Berlin, ")
    assert isochrone("routes", "--lat", "52").returncode == 2


def test_latency_says_what_it_is_based_on(isochrone: Run) -> None:
    """Nobody could tell a guess from a measurement, nor why users go where they go."""
    done = isochrone("get", "latency", "--cell", "Berlin", "-o", "wide")
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert rows[0] == ["CELL", "CLUSTER", "P50", "P95", "BASIS", "CONFIDENCE", "AGE", "SOURCE"]
    assert {row[1] for row in rows[1:]} == {"fra", "iad", "mad"}
    assert all(row[4] in ("inferred", "prior") and row[5].endswith("%") for row in rows[1:])
    one = isochrone("get", "latency", "--cell", "Berlin", "--cluster", "mad", "-o", "json")
    assert [row["cluster"] for row in json.loads(one.stdout)["items"]] == ["mad"]
    assert isochrone("get", "latency", "--cell", "Nowhere").returncode == 5
    assert isochrone("get", "latency").returncode == 2
    assert isochrone("get", "models", "--cell", "Berlin").returncode == 2


def test_diff_ends_with_one_when_something_would_move(isochrone: Run, tmp_path: Path) -> None:
    """A pipeline asks by the exit code whether a change is safe to merge."""
    same, other = tmp_path / "same" / "chat.yaml", tmp_path / "other" / "chat.yaml"
    for path, model in ((same, MODEL), (other, STRICTER)):
        path.parent.mkdir()
        path.write_text(yaml.safe_dump_all([model, POLICY]), encoding="utf-8")
    done = isochrone("diff", "-f", str(same))
    assert (done.returncode, done.stdout) == (0, "nothing would change\n")
    done = isochrone("diff", "-f", str(other))
    assert done.returncode == 1, done.stderr
    assert "USD per hour: 4.30 -> 5.40" in done.stdout
    changes = {row[0]: row[2] for row in (line.split()[1:] for line in done.stdout.splitlines()[:2])}
    assert set(changes) == {"chat-8b"}
    assert "New York" in done.stdout
    as_json = json.loads(isochrone("diff", "-f", str(other), "-o", "json").stdout)
    assert {(one["cluster"], one["before"], one["after"]) for one in as_json["changes"]} == {
        ("fra", 7, 6),
        ("iad", 1, 3),
    }
    newer = tmp_path / "newer" / "chat.yaml"
    newer.parent.mkdir()
    image = {**MODEL, "spec": {**MODEL["spec"], "runtime": {"preset": "vllm", "image": "vllm/vllm-openai:v0.12.0"}}}
    newer.write_text(yaml.safe_dump_all([image, POLICY]), encoding="utf-8")
    done = isochrone("diff", "-f", str(newer))
    assert (done.returncode, "chat-8b: 8 replicas restart" in done.stdout) == (1, True), done.stdout
    harmful = tmp_path / "harmful" / "chat.yaml"
    harmful.parent.mkdir()
    none = {
        **MODEL,
        "spec": {**MODEL["spec"], "accelerators": [{**MODEL["spec"]["accelerators"][0], "minVramGiB": 900}]},
    }
    harmful.write_text(yaml.safe_dump_all([none, POLICY]), encoding="utf-8")
    done = isochrone("diff", "-f", str(harmful))
    assert done.returncode == 1
    assert "apply would refuse it: chat-8b would go to nothing: 8 replicas" in done.stdout
    assert isochrone("get", "policies", "chat.yaml", "--no-headers").stdout.split()[1] == "2", "diff changes nothing"


def test_a_bad_file_is_refused_with_its_place(isochrone: Run, tmp_path: Path) -> None:
    """The author of a policy would search a long file for one wrong value."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: isochrone.dev/v1alpha1\nkind: Model\nmetadata: {name: x}\nspec: {slo: 5s}\n")
    where = "bad.yaml:4:13: "
    for command, status in (("lint", 1), ("apply", 1), ("diff", 2)):
        done = isochrone(command, *(["-f"] if command != "lint" else []), str(bad))
        assert done.returncode == status
        said = done.stdout if command == "lint" else done.stderr
        assert said.count(where) == 1, said
    assert json.loads(isochrone("lint", "-o", "json", str(bad)).stdout)[0]["line"] == 4


def test_lint_needs_no_controller(tmp_path: Path) -> None:
    """A policy could not be checked in a pull request."""
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump_all([MODEL, POLICY]))
    done = run("lint", "chat.yaml", cwd=tmp_path, env=environment(tmp_path))
    assert (done.returncode, done.stdout) == (0, "1 file is good\n")


def test_apply_and_delete_a_policy(isochrone: Run, tmp_path: Path) -> None:
    """A policy could not be handed in, withdrawn or put back from the command line."""
    (tmp_path / "extra.yaml").write_text(yaml.safe_dump({**MODEL, "metadata": {"name": "extra"}}))
    assert isochrone("apply", "-f", "extra.yaml").stdout == "model/extra configured\n"
    assert isochrone("apply", "-f", "extra.yaml").stdout == "model/extra unchanged\n"
    assert isochrone("delete", "policy", "extra.yaml").stdout == "model/extra deleted\n"
    again = isochrone("delete", "policy", "extra.yaml")
    assert (again.returncode, again.stdout) == (5, "")
    assert isochrone("rollback", "policy", "extra.yaml").stdout == "model/extra rolled back\n"
    assert isochrone("delete", "policy", "extra.yaml").returncode == 0
    piped = isochrone("apply", "-f", "-", stdin=(tmp_path / "extra.yaml").read_text())
    assert piped.stdout == "model/extra configured\n"
    assert isochrone("delete", "policy", "stdin.yaml").returncode == 0


def test_what_does_harm_needs_force_and_a_reason(isochrone: Run) -> None:
    """A slip in a terminal would take a model from all its users."""
    refused = isochrone("delete", "policy", "chat.yaml")
    assert refused.returncode == 1
    assert "chat-8b would go to nothing: 8 replicas, which serve 64.0 requests per second" in refused.stderr
    assert '--force --reason "…"' in refused.stderr
    no_reason = isochrone("delete", "policy", "chat.yaml", "--force")
    assert no_reason.returncode == 2 and "--reason" in no_reason.stderr
    assert isochrone("get", "mo", "--no-headers").stdout.split()[:3] == ["chat-8b", "ok", "8/8"]


def test_cordon_drain_and_uncordon(isochrone: Run) -> None:
    """Maintenance would start on a cluster that still gets load, or nobody would know who cordoned it and why."""
    for reason in ([], ["--reason", " "]):
        assert isochrone("cordon", "mad", *reason).returncode == 2, "the next engineer will ask why"
    assert isochrone("cordon", "mad", "--reason", "kernel").stdout == "cluster/mad cordoned\n"
    row = table(isochrone("get", "cluster", "mad", "--no-headers").stdout)[0]
    assert row[1] == "Ready,Cordoned"
    assert "cordoned: kernel" in isochrone("get", "cluster", "mad", "-o", "wide").stdout
    assert isochrone("drain", "mad", "--reason", "leaving").stdout == "cluster/mad drained\n"
    assert isochrone("uncordon", "mad").stdout == "cluster/mad uncordoned\n"


def test_confirm_makes_believed_what_waits(fleet: Fleet, isochrone: Run) -> None:
    """The command that a condition names would not be there, or say that it did what it did not."""
    assert isochrone("confirm", "iad").returncode == 2, "the next engineer will ask why"
    with fleet.launched("iad", 4_000.0):
        told = isochrone("describe", "cluster", "iad").stdout
        assert "isochrone confirm iad --reason" in told
        done = isochrone("confirm", "iad", "--model", "chat-8b", "--reason", "x")
        assert done.returncode == 1 and "demand for launched waits" in done.stderr
        assert isochrone("confirm", "iad", "--model", "launched", "--reason", "a launch").stdout == (
            "cluster/iad confirmed\n"
        )
        assert "DemandDoubted" not in isochrone("describe", "cluster", "iad").stdout.partition("events:")[0]
        assert "iad is believed by confirmation" in isochrone("get", "events").stdout
        again = isochrone("confirm", "iad", "--reason", "a launch")
        assert again.returncode == 1 and "nothing of iad waits" in again.stderr
    assert "isochrone confirm aws-eu-central-1 --reason" in isochrone("confirm", "--help").stdout


def test_watch_prints_what_changes(fleet: Fleet, isochrone: Run, tmp_path: Path) -> None:
    """An operator who follows a rollout would see nothing, or the same rows every second."""
    env = environment(tmp_path, ISOCHRONE_SERVER=fleet.url, ISOCHRONE_TOKEN=TOKEN, PYTHONUNBUFFERED="1")
    command = [sys.executable, "-m", "federation.cli", "get", "clusters", "-w"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            assert [watching.stdout.readline().split()[0] for _ in range(4)] == ["NAME", "fra", "iad", "mad"]
            time.sleep(0.5)  # a world that only grows older prints nothing
            isochrone("cordon", "iad", "--reason", "a test")
            assert watching.stdout.readline().split()[:2] == ["iad", "Ready,Cordoned"]
            isochrone("uncordon", "iad")
            assert watching.stdout.readline().split()[:2] == ["iad", "Ready"]
        finally:
            watching.terminate()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("get", "clustr"), 2, "did you mean clusters?"),
        (("get", "cluster", "frr"), 5, "did you mean fra?"),
        (("gte", "clusters"), 2, "Did you mean get?"),
        (("explain", "placement", "nope"), 5, "model nope is not placed"),
        (("cordon", "nope", "--reason", "x"), 5, "cluster nope not found"),
        (("confirm", "nope", "--reason", "x"), 5, "cluster nope not found"),
        (("describe", "plan", "9999"), 5, "plan 9999 not found"),
        (("apply", "-f", "nowhere.yaml"), 2, "nowhere.yaml: no such file"),
        (("apply", "-f", "/dev/zero"), 2, "not a regular file"),
        (("--token-file", "wrong-token", "get", "clusters"), 4, "no valid token"),
        (("--token", "anything", "get", "clusters"), 2, "give --token-file"),
        (("--server", "ftp://me:hunter2@host", "get", "clusters"), 2, "is not a URL"),
        (("controller", "--policies", ".", "--broker", "mqtts://me:hunter2@host"), 2, "--broker-password-file"),
        (("agent", "simulated", "--cluster", "x", "--broker", "mqtts:/me:hunter2@host"), 2, "--broker-password-file"),
        (("--server", "http://127.0.0.1:1", "get", "clusters"), 3, "cannot reach the controller"),
        (("--server", "http://controller.example", "get", "clusters"), 2, "in plain text"),
        (("--server", "controller", "get", "clusters"), 2, "is not a URL"),
        (("controller", "--policies", "nowhere"), 2, "no such directory"),
        (("agent", "kubernetes", "--broker", "mqtt://127.0.0.1:1"), 2, "--cluster"),
        (
            (
                *("agent", "simulated", "--cluster", "fra-1", "--broker", "mqtt://127.0.0.1:1"),
                *("--pool", "NVIDIA-L4=8", "--at", "north,8.7"),
            ),
            2,
            "expected latitude and longitude",
        ),
    ],
)
def test_errors_say_the_cause_and_the_next_step(
    isochrone: Run, tmp_path: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    """A user would see a stack trace, or a password in the terminal's history."""
    (tmp_path / "wrong-token").write_text("wrong\n")
    done = isochrone(*arguments)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr, "a password is told"


HOSTILE = "\x1b[2J\x1b]52;c;cm0gLXJmIC8=\x07\x9b31m\u202ereversed\r\nfra  Ready"
"""Clears the screen, writes the clipboard, colours, turns the writing round, forges a row."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "events"),
        ("get", "events", "-o", "wide"),
        ("get", "events", "-o", "json"),
        ("get", "events", "-o", "yaml"),
        ("describe", "cluster", "fra"),
        ("get", "clusters", "-o", "wide"),
    ],
    ids=" ".join,
)
def test_what_clusters_say_does_not_steer_the_terminal(
    fleet: Fleet, isochrone: Run, arguments: tuple[str, ...]
) -> None:
    """Who may name a cell or an error could write the operator's clipboard, or show a healthy table."""
    note = Note(type="Warning", reason="MessageRefused", object="cluster/fra", message=HOSTILE)
    fleet.do(lambda: fleet.controller.hub.tell(note))
    done = isochrone(*arguments)
    assert done.returncode == 0, done.stderr
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.stdout)
    assert not re.search("^fra  Ready$", done.stdout, re.MULTILINE)
    if arguments[-1] == "json":
        assert json.loads(done.stdout)["items"][-1]["message"] == HOSTILE, "scripts get what was said"


def test_without_a_controller_the_way_to_one_is_said(tmp_path: Path) -> None:
    """The first command of a new user would end in a refused connection without advice."""
    done = run("get", "clusters", cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 3
    assert "isochrone demo" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--listen", "0.0.0.0:0"), "give --tls-cert and --tls-key"),
        (("--broker", "mqtt://broker.example"), "use mqtts:// and an identity"),
        (("--broker", "mqtts://broker.example"), "use mqtts:// and an identity"),
        (("--broker", "http://127.0.0.1"), "expected mqtt://HOST"),
    ],
)
def test_nothing_is_served_or_spoken_in_the_clear(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """Orders that anyone can read or forge would be carried out by every cluster."""
    (tmp_path / "policies").mkdir()
    options = ("--policies", "policies", "--data", "data", "--broker-port", "0")
    done = run("controller", *options, *arguments, cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 1
    assert says in done.stderr


def commands() -> list[tuple[str, ...]]:
    from federation.cli.main import LAZY

    return [(), *((name,) for name in LAZY), ("agent", "kubernetes"), ("explain", "placement")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_shows_examples(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A user would have to guess the arguments of a command."""
    done = run(*command, "--help", cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert f"isochrone {' '.join(command)}".strip() in done.stdout.partition("Examples:")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(tmp_path: Path, shell: str) -> None:
    """The shell's completion would be silent."""
    done = run("completion", shell, cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 0
    assert "_ISOCHRONE_COMPLETE" in done.stdout


def test_completion_completes(tmp_path: Path) -> None:
    """Pressing Tab would offer nothing."""
    env = environment(tmp_path, _ISOCHRONE_COMPLETE="bash_complete", COMP_WORDS="isochrone unc", COMP_CWORD="1")
    done: Any = run(cwd=tmp_path, env=env)
    assert done.stdout == "plain,uncordon\n", done.stderr


def test_what_a_gateway_refused_is_shown(fleet: Fleet, isochrone: Run) -> None:
    """A region would go on with yesterday's routes, and nobody would know why."""
    good = GatewayStatus(node="fra-gw", cluster="fra", connected=True, since_s=0.0)
    bad = replace(good, refused={"routes": "route: unknown cluster 'nowhere'"})
    fleet.do(lambda: fleet.controller.traffic.hear(bad))
    try:
        rows = table(isochrone("get", "gateways", "-o", "wide").stdout)
        assert rows[1][:4] == ["fra-gw", "fra", "Connected", "routes"]
        assert "unknown cluster 'nowhere'" in rows[1][-1]
        assert "refused new routes" in isochrone("describe", "cluster", "fra").stdout
        assert "GatewayRefused" in isochrone("get", "events").stdout
    finally:
        fleet.do(lambda: fleet.controller.traffic.hear(good))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--xds-listen", "127.0.0.1:99999"), "expected HOST:PORT"),
        (("--xds-listen", "127.0.0.1:0", "--xds-cert", "CERT"), "--xds-ca"),
        (("--xds-cert", "CERT", "--xds-key", "CERT", "--xds-ca", "CERT"), "--xds-listen"),
    ],
)
def test_options_for_gateways_that_would_be_without_effect_are_refused(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    """Whoever gave a certificate would believe that gateways are served by TLS."""
    (tmp_path / "CERT").write_text("a certificate", encoding="utf-8")
    (tmp_path / "policies").mkdir()
    command = ("controller", "--policies", "policies", "--data", "data", *options)
    done = run(*command, cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 2
    assert says in done.stderr


def test_the_frontier_says_where_policy_stands(isochrone: Run) -> None:
    """What nearer service costs would be a matter of guessing."""
    done = isochrone("frontier")
    assert done.returncode == 0, done.stderr
    assert "policy stands" in done.stdout
    assert table(done.stdout)[0][:3] == ["USD/H", "RTT", "EXCESS"]
    assert json.loads(isochrone("frontier", "chat-8b", "-o", "json").stdout)["is_done"]
    assert isochrone("frontier", "chat-9b").returncode == 5
