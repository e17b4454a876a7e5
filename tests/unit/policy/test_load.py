"""Bad policies: each refused with file, line, column, what was expected and a hint, fast, and nothing lost."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest

from federation.adapters.directory import PolicyDirectory
from federation.policy import catalogue
from federation.policy.catalogue import PolicySet
from federation.state.shipped import shipped_products

MODEL = """\
apiVersion: isochrone.dev/v1alpha1
kind: Model
metadata: {name: chat}
spec:
  runtime: {preset: vllm, image: example/vllm:1}
  resources: {cpu: "4", memory: 16Gi}
  accelerators:
    - {product: NVIDIA-L4, requestsPerSecond: 4}
  slo: {p95LatencyMs: 250}
  warmupSeconds: 180
"""
POLICY = """\
apiVersion: isochrone.dev/v1alpha1
kind: PlacementPolicy
metadata: {name: global}
spec:
  models: {matchNames: [chat]}
  residency:
    - {usersIn: {countries: [DE]}, clustersIn: {jurisdictions: [EU]}}
  availability: {minReplicas: 2, minRegions: 2}
"""
CLUSTER = """\
apiVersion: isochrone.dev/v1alpha1
kind: Cluster
metadata: {name: fra-1}
spec:
  provider: aws
  region: eu-central-1
  gateway: {address: 192.0.2.1}
  location: {city: Frankfurt, country: DE, lat: 50.1, lon: 8.7}
"""
POOL = CLUSTER + "  accelerators:\n    - {product: NVIDIA-L4, vramGiB: 24, usdPerDeviceHour: 1.0, MORE}\n"
CELLS = """\
apiVersion: isochrone.dev/v1alpha1
kind: Cluster
metadata: {name: fra-1}
spec:
  provider: aws
  region: eu
  cells: [{name: c, country: de}%s]
  location: {lat: 50, lon: 8, country: DE}
""" % (", {name: c, country: de}" * 3499)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)

CASES = [
    pytest.param("", 1, 1, "no document", id="blank"),
    pytest.param("# nothing\n", 1, 1, "no document", id="comments-only"),
    pytest.param("null\n", 1, 1, "no document", id="null"),
    pytest.param("- 1\n", 1, 1, "not a mapping", id="a-list"),
    pytest.param("hello\n", 1, 1, "not a mapping", id="a-word"),
    pytest.param("{}\n", 1, 1, "apiVersion is missing", id="an-empty-mapping"),
    pytest.param(MODEL.replace("spec:\n", "spec: null\nold:\n"), 4, 7, "spec is empty", id="null-spec"),
    pytest.param(MODEL.replace("180", "3m"), 10, 18, "write 180", id="wrong-unit-of-time"),
    pytest.param(MODEL.replace("16Gi", "16GB"), 6, 33, "16Gi", id="wrong-unit-of-memory"),
    pytest.param(MODEL.replace("16Gi", "16GiB"), 6, 33, "write 16Gi)", id="unit-of-memory-with-its-b"),
    pytest.param(
        MODEL.replace("\n    - {product: NVIDIA-L4, requestsPerSecond: 4}", " []"),
        7,
        17,
        "is an empty list",
        id="no-accelerator",
    ),
    pytest.param(
        MODEL.replace("250", "x" * 900_000), 9, 23, "expected a number", id="a-value-of-900-kB-leaves-the-rest-readable"
    ),
    pytest.param(MODEL + f"  {'x' * 300}: 1\n", 11, 3, "unknown field", id="a-long-field"),
    pytest.param(MODEL + "# a\u202eb\n", 11, 4, "U+202E", id="text-that-reads-backwards"),
    pytest.param(MODEL.replace("warmupSeconds", "warmupSecond"), 10, 3, "warmupSeconds?", id="misspelt-field"),
    pytest.param(MODEL + "  colour: blue\n", 11, 3, "unknown field colour", id="unknown-field"),
    pytest.param(MODEL + "  warmupSeconds: 5\n", 11, 3, "appears twice", id="duplicate-key"),
    pytest.param(BOMB, 1, 4, "anchors and aliases", id="alias-bomb"),
    pytest.param("a: " + "[" * 1_000 + "]" * 1_000, 1, 35, "nested deeper", id="depth-1,000"),
    pytest.param("a: " + "[" * 100_000, 1, 35, "nested deeper", id="depth-100,000"),
    pytest.param("a: " + "x" * 100_000_000, 1, 1, "longer than", id="100-MB"),
    pytest.param("a: [" + "x," * 60_000 + "]", 1, 39_999, "more than 20000", id="60,000-values"),
    pytest.param(MODEL.replace("250", ".nan"), 9, 23, ".nan", id="nan"),
    pytest.param(MODEL.replace("250", "-.inf"), 9, 23, "-.inf", id="infinity"),
    pytest.param(MODEL.replace("250", "1e400"), 9, 23, "out of range", id="1e400"),
    pytest.param(MODEL.replace("250", "-5"), 9, 23, "-5", id="negative"),
    pytest.param(MODEL.replace("NVIDIA-L4", "NVIDIA-L5"), 8, 17, "NVIDIA-L4", id="unknown-product"),
    pytest.param(MODEL.replace("kind: Model", "kind: Modle"), 2, 7, "did you mean Model?", id="unknown-kind"),
    pytest.param(MODEL.replace("v1alpha1", "v9"), 1, 13, "unknown apiVersion", id="unknown-version"),
    pytest.param(MODEL.replace("kind: Model\n", ""), 1, 1, "kind is missing", id="no-kind"),
    pytest.param(MODEL.replace("  slo: {p95LatencyMs: 250}\n", ""), 5, 3, "slo is missing", id="missing-field"),
    pytest.param(MODEL.replace("preset: vllm", "preset: vlm"), 5, 21, "did you mean vllm?", id="unknown-preset"),
    pytest.param(MODEL.replace("  slo", "\tslo"), 9, 1, "no tabs", id="tab"),
    pytest.param(MODEL.encode() + b"# \xff\n", 11, 3, "not UTF-8", id="not-utf-8"),
    pytest.param(MODEL + "# \x00\n", 11, 3, "control character", id="nul"),
    pytest.param(MODEL.replace("spec:\n", "spec:\n  <<: {}\n"), 5, 3, "merge keys", id="merge-key"),
    pytest.param(MODEL.replace("250", "!!int 250"), 9, 23, "tag", id="tag"),
    pytest.param(
        POLICY.replace("minReplicas: 2", "minReplicas: 1"), 8, 46, "minReplicas: 2", id="regions-over-replicas"
    ),
    pytest.param(
        POLICY.replace("minReplicas: 2", "surviveWithinObjectivePercent: 90, minReplicas: 2"),
        8,
        49,
        "write survive: region",
        id="survives-nothing",
    ),
    pytest.param(
        POLICY.replace("minReplicas: 2", "minReplicas: 2, maxReplicas: 1"),
        8,
        47,
        "write maxReplicas: 2",
        id="less-than-the-least",
    ),
    pytest.param(
        POLICY.replace("minReplicas: 2", "minReplicas: 2, maxReplicas: 4, pinned: [{cluster: fra-1, replicas: 5}]"),
        8,
        47,
        "5 replicas that are pinned",
        id="less-than-what-is-pinned",
    ),
    pytest.param(POLICY.replace("minRegions", "maxReplicas: 0, minRegions"), 8, 47, ">= 1", id="no-replica-at-all"),
    pytest.param(POLICY.replace("minRegions", "maxReplicas: 2.5, minRegions"), 8, 47, "2.5", id="half-a-replica"),
    pytest.param(POLICY + "  budget: {maxUsdPerHour: 0}\n", 9, 27, "> 0", id="no-money-at-all"),
    pytest.param(POLICY + "  budget: {maxUsdPerHour: 12 USD}\n", 9, 27, "write 12", id="money-with-its-unit"),
    pytest.param(POLICY + "  budget: {maxEurPerHour: 12}\n", 9, 12, "maxUsdPerHour", id="other-money"),
    pytest.param(
        POLICY + "  objective: {latencyUsdPer1000PerMs: 0.1}\n",
        9,
        39,
        "less than 0.065",
        id="near-is-worth-more-than-being-served",
    ),
    pytest.param(
        POLICY + "  objective: {latencyCost: [{ms: 100, usdPer1000: 0}, {ms: 200, usdPer1000: 20}]}\n",
        9,
        28,
        "at its steepest",
        id="far-is-worse-than-turned-away",
    ),
    pytest.param(
        POLICY + "  objective: {latencyCost: [{ms: 100, usdPer1000: 0}, {ms: 90, usdPer1000: 0.1}]}\n",
        9,
        60,
        "more than 100",
        id="a-curve-that-goes-back",
    ),
    pytest.param(
        POLICY
        + "  objective: {latencyCost: [{ms: 9, usdPer1000: 0}, {ms: 19, usdPer1000: 1}, {ms: 29, usdPer1000: 1}]}\n",
        9,
        99,
        "at least 2",
        id="a-curve-that-flattens",
    ),
    pytest.param(
        POLICY + "  objective: {latencyCost: [{ms: 9, usdPer1000: 1}, {ms: 19, usdPer1000: 0.5}]}\n",
        9,
        74,
        "at least 1",
        id="a-curve-that-falls",
    ),
    pytest.param(
        POLICY + "  objective: {latencyUsdPer1000PerMs: 0.001, latencyCost: [{ms: 9, usdPer1000: 1}]}\n",
        9,
        59,
        "leave latencyUsdPer1000PerMs out",
        id="two-prices-of-latency",
    ),
    pytest.param(
        POLICY + "  objective: {preference: nearest, latencyUsdPer1000PerMs: 0}\n",
        9,
        27,
        "one of them",
        id="a-price-for-those-who-want-the-nearest",
    ),
    pytest.param(POLICY + "  objective: {preference: closest}\n", 9, 27, "nearest", id="a-preference-that-is-none"),
    pytest.param(POLICY + "  objective: {latencyCost: []}\n", 9, 28, "at least one", id="a-curve-of-no-points"),
    pytest.param(
        POLICY + "  budget: {maxUsdPerHour: 12}\n  autoscaling: {burstReplicas: 2}\n",
        10,
        32,
        "write burstReplicas: 0",
        id="bursts-beside-a-budget",
    ),
    pytest.param(
        POLICY.replace("  availability", "    - {clustersIn: {jurisdictions: [US]}}\n  availability"),
        8,
        7,
        "contradicts",
        id="contradictory-residency",
    ),
    pytest.param(
        POLICY + "  failover: {maxOtherContinentsPercent: 101}\n", 9, 41, "<= 100", id="more-than-all-may-leave"
    ),
    pytest.param(POLICY + "  failover: {maxOtherContinentsPercent: -1}\n", 9, 41, ">= 0", id="less-than-nobody"),
    pytest.param(POLICY + "  failover: {maxOtherContinentPercent: 1}\n", 9, 14, "Continents", id="one-continent"),
    pytest.param(POOL.replace("MORE", "lossesPerHour: 0.1"), 10, 7, "market: spot", id="losses-on-demand"),
    pytest.param(POOL.replace("MORE", "market: spot, replacementChance: 0"), 10, 97, "> 0", id="never-replaced"),
    pytest.param(POLICY.replace("[DE]", "[de]"), 7, 30, "DE", id="country-in-lower-case"),
    pytest.param(POLICY.replace("[DE]", "[no]"), 7, 30, "'no'", id="norway"),
    pytest.param(POLICY.replace("chat", "taken"), 5, 25, "already obeys", id="two-policies-for-a-model"),
    pytest.param(
        POLICY + "  traffic: {dns: {zone: m.example, routing: geoproximity}}\n",
        9,
        45,
        "aws",
        id="geography-without-aws",
    ),
    pytest.param(
        POLICY + "  traffic: {sessionHeader: x-isochrone-from}\n", 9, 28, "x-session-id", id="session-by-our-own-header"
    ),
    pytest.param(CLUSTER.replace("192.0.2.1", "127.0.0.999"), 7, 22, "not an address", id="no-ip-address"),
    pytest.param(CLUSTER.replace("192.0.2.1", "0.0.0.0"), 7, 22, "not an address", id="address-of-nobody"),
    pytest.param(CLUSTER.replace("192.0.2.1", "169.254.1.1"), 7, 22, "not an address", id="address-of-one-link"),
    pytest.param(CLUSTER.replace("192.0.2.1", "239.1.2.3"), 7, 22, "not an address", id="address-of-many"),
    pytest.param(CLUSTER.replace("192.0.2.1", "999.0.2.1"), 7, 22, "not an address", id="address-out-of-range"),
    pytest.param(MODEL.replace("chat", "other"), 3, 18, "already defined", id="two-models-of-one-name"),
]

AT_ONCE_S = 0.02
MANY_WRONG = """\
apiVersion: isochrone.dev/v1alpha1
kind: Model
metadata: {name: chat, colour: blue}
spec:
  runtime: {preset: vlm, image: ""}
  resources: {cpu: "4"}
  accelerators:
    - {product: NVIDIA-L4, requestsPerSecond: -1, count: 65}
    - {product: NVIDIA-L4}
  warmupSeconds: 3m
---
apiVersion: isochrone.dev/v1alpha1
kind: PlacementPolicy
metadata: {name: global}
spec:
  models: {matchNames: [taken]}
---
"""


def in_force() -> PolicySet:
    """A set with two good files, that bad ones are handed in beside."""
    known = PolicySet(products=shipped_products())
    for name, text in (
        ("first.yaml", MODEL.replace("chat", "other")),
        ("second.yaml", POLICY.replace("chat", "taken").replace("global", "theirs")),
        ("bad.yaml", MODEL),
    ):
        known, problems = catalogue.accept(known, name, text.encode())
        assert problems == ()
    return known


@pytest.mark.parametrize(("text", "line", "column", "says"), CASES)
def test_it_is_refused_where_it_is_wrong(text: str | bytes, line: int, column: int, says: str) -> None:
    """A poisoned policy would be obeyed, stop the controller, or be refused without a word that helps."""
    before = in_force()
    payload = text.encode() if isinstance(text, str) else text
    after, problems = catalogue.accept(before, "bad.yaml", payload)
    assert problems, "it is refused"
    first = problems[0]
    assert (first.file, first.line, first.column) == ("bad.yaml", line, column), first.text()
    assert says in first.text()
    assert first.expected or first.hint
    assert len(first.text()) < 1_000, "who reads it would not find the place for the quotation"
    assert after is before, "the last accepted revision and the other files stay in force"


def test_all_that_is_wrong_in_a_file_is_told_at_once() -> None:
    """Who mends a file of ten faults would hand it in ten times, with users waiting."""
    _, problems = catalogue.accept(in_force(), "bad.yaml", MANY_WRONG.encode())
    told = [(one.line, one.message) for one in problems]
    wanted = [
        (3, "unknown field colour"),
        (5, "slo is missing"),
        (5, "preset is 'vlm'"),
        (5, "image is ''"),
        (6, "memory is missing"),
        (8, "requestsPerSecond is -1"),
        (8, "count is 65"),
        (9, "requestsPerSecond is missing"),
        (10, "warmupSeconds is '3m'"),
        (16, "model taken already obeys policy theirs"),
    ]
    for line, words in wanted:
        assert any(at == line and words in text for at, text in told), (line, words, told)
    assert len(told) == len(wanted), told
    together = catalogue.accept_together(in_force(), {"bad.yaml": MANY_WRONG.encode()})
    assert together.problems["bad.yaml"] == problems, "the directory is told the same"


KUBERNETES = """\
  labels: {app.kubernetes.io/part-of: serving}
  annotations: {argocd.argoproj.io/sync-wave: "1"}
  namespace: default
  creationTimestamp: "2026-11-30T00:00:00Z"
  generation: 3
  resourceVersion: "4711"
  uid: 0b5e1c1e-0000-4000-8000-000000000000
  finalizers: [example.dev/wait]
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: y, controller: true}]
  managedFields: [{manager: kubectl, operation: Update, fieldsV1: {"f:spec": {".": {}}}}]
"""


def test_metadata_is_as_kubernetes_helm_and_kustomize_write_it() -> None:
    """Files that `kubectl get -o yaml`, Helm or Kustomize wrote would have to be edited by hand."""
    text = MODEL.replace("metadata: {name: chat}\n", f"metadata:\n  name: chat\n{KUBERNETES}")
    known, problems = catalogue.accept(PolicySet(), "m.yaml", text.encode())
    assert not problems, problems
    assert [one.metadata.name for one in known.documents().models] == ["chat"]


@pytest.mark.parametrize("text", [MODEL + "---\n", "---\n---\n" + MODEL, MODEL + "---\n# nothing\n---\nnull\n"])
def test_an_empty_document_is_nothing(text: str) -> None:
    """Helm ends files with a separator, and writes empty documents for templates that are switched off."""
    known, problems = catalogue.accept(PolicySet(), "m.yaml", text.encode())
    assert not problems, problems
    assert len(known.documents().models) == 1


HELM = """\
apiVersion: isochrone.dev/v1alpha1
kind: PlacementPolicy
metadata:
  name: chat
  labels:
  annotations:
spec:
  models: {matchNames: [chat-8b]}
  residency:
  spot: null
  availability: {minReplicas: 3.0, maxReplicas: 1e+05, maxPartPerDomain: null}
"""
LIST = """\
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: isochrone.dev/v1alpha1
  kind: PlacementPolicy
  metadata: {name: chat, creationTimestamp: null}
  spec: {models: {matchNames: [chat-8b]}}
"""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HELM, id="helm-leaves-fields-empty-and-writes-large-numbers-as-floats"),
        pytest.param(LIST, id="kubectl-get-of-several"),
        pytest.param(
            LIST.replace("v1\nkind: List", "isochrone.dev/v1alpha1\nkind: PlacementPolicyList"), id="typed-list"
        ),
        pytest.param("\ufeff" + HELM, id="byte-order-mark"),
        pytest.param("%YAML 1.2\n---\n" + HELM + "...\n---\n# nothing\n", id="directive-and-ends-of-documents"),
        pytest.param(HELM.replace("\n", "\r"), id="line-ends-of-old"),
    ],
)
def test_it_is_read_as_tools_write_it(text: str) -> None:
    """Charts' output, and what kubectl gives back, would have to be edited by hand."""
    known, problems = catalogue.accept(PolicySet(), "m.yaml", text.encode())
    assert not problems, problems
    (policy,) = known.documents().policies
    assert policy.metadata.name == "chat"
    if "maxReplicas" in text:
        assert (policy.spec.availability.min_replicas, policy.spec.availability.max_replicas) == (3, 100_000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            HELM.replace("  labels:\n", "  labels: {wave: 1}\n"),
            'm.yaml:5:18: metadata.labels.wave is 1 (expected text; quote it: "1")',
        ),
        (HELM.replace("  annotations:\n", "  annotations: {a.dev/b: true}\n"), 'quote it: "true"'),
        (HELM.replace("  models: {matchNames: [chat-8b]}\n", "  models:\n"), "m.yaml:8:10: spec.models is empty"),
        (HELM.replace("1e+05", "2.5"), "spec.availability.maxReplicas is 2.5 (expected a whole number"),
        (HELM.replace("1e+05", "1e+06"), "maxReplicas is 1000000"),
        (LIST.replace("chat-8b", "Chat"), "m.yaml:8:32: spec.models.matchNames.0 is 'Chat'"),
        (LIST + "- kind: Modell\n", "m.yaml:9:3: apiVersion is missing"),
    ],
)
def test_what_tools_write_wrong_is_said_where_it_is(text: str, says: str) -> None:
    """An engineer would search a chart of a thousand lines."""
    _, problems = catalogue.accept(PolicySet(), "m.yaml", text.encode())
    assert says in problems[0].text(), problems


def accept_s(before: PolicySet, payload: bytes) -> float:
    """Processor time, best of three: machines are shared."""
    gc.collect()
    taken_s = []
    for _ in range(3):
        begun_s = time.process_time()
        catalogue.accept(before, "bad.yaml", payload)
        taken_s.append(time.process_time() - begun_s)
    return min(taken_s)


@pytest.mark.parametrize(("text", "line", "column", "says"), CASES)
def test_it_is_refused_at_once(text: str | bytes, line: int, column: int, says: str) -> None:
    """One bad file would stop a controller from planning: no file takes much longer than the largest that is read."""
    before = in_force()
    taken_s = accept_s(before, text.encode() if isinstance(text, str) else text)
    assert taken_s < AT_ONCE_S or taken_s < 3.0 * accept_s(before, f"a: [{'x,' * 19_000}]".encode())


def test_thousands_of_faults_are_told_by_the_first() -> None:
    """While they are looked for the controller does nothing else: a second or more for a list in lower case."""
    before, good = in_force(), CELLS.replace("de}", "DE}")
    assert accept_s(before, CELLS.encode()) < 4.0 * accept_s(before, good.encode())
    _, problems = catalogue.accept(before, "bad.yaml", CELLS.encode())
    assert len(problems) == 100
    assert problems[0].text().startswith("bad.yaml:7:30: spec.cells.0.country is 'de'")


def test_a_huge_file_is_not_even_read(tmp_path: Path) -> None:
    """A file of gigabytes in the directory would fill the memory."""
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)
    assert len(PolicyDirectory(tmp_path).read().files["huge.yaml"]) == 1024 * 1024 + 1


def test_the_words_that_yaml_1_1_turned_into_others_stay_words() -> None:
    """`args: [no]` or a version 12:30 would silently become False or 45000."""
    text = MODEL.replace("image: example/vllm:1", "image: example/vllm:1, args: [no, on, 12:30:00, 0o17x]")
    known, problems = catalogue.accept(PolicySet(), "m.yaml", text.encode())
    assert problems == ()
    assert known.documents().models[0].spec.runtime.args == ("no", "on", "12:30:00", "0o17x")
