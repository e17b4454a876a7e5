"""The reasons of events, each with its meaning and what an operator does about it.

The reference of the documentation is generated from `EVENTS`. A condition that a cluster reports is an event too, under
the type of the condition (`federation/wire/conditions.py`).
"""

from __future__ import annotations

from typing import Literal

EventReason = Literal[
    "BrakeOff",
    "BrakeOn",
    "BrokerFound",
    "BrokerLost",
    "ClockInStep",
    "ClockSkew",
    "ClockWentBack",
    "ClusterLost",
    "ClusterReady",
    "ClusterUnreachable",
    "Committed",
    "Confirmed",
    "ControllerSlept",
    "Cordoned",
    "ForcedChangeDone",
    "ForcedChangeHalted",
    "ForcedChangeResumed",
    "GatewayAccepted",
    "GatewayConnected",
    "GatewayGone",
    "GatewayRefused",
    "GatewayUnknown",
    "ManifestFailed",
    "MessageRefused",
    "ModelFails",
    "ModelPlannedAgain",
    "ModelSetAside",
    "NameTaken",
    "NoGateway",
    "OtherController",
    "OtherControllerDoubted",
    "OverTarget",
    "PlanNotKept",
    "PolicyAccepted",
    "PolicyDirectoryLost",
    "PolicyDoubtful",
    "PolicyFileGone",
    "PolicyForced",
    "PolicyMoved",
    "PolicyNotForeseen",
    "PolicyNotStored",
    "PolicyOutdated",
    "PolicyRefused",
    "PolicyWaits",
    "PolicyWithdrawn",
    "PriceFeedFailed",
    "PriceFeedRead",
    "PricesDoubted",
    "PrometheusFailed",
    "PrometheusRead",
    "Refused",
    "Replaced",
    "ReplicasFailed",
    "ReplicasNotReady",
    "ReplicasRecovered",
    "RoundTripsDoubted",
    "SequenceWentBack",
    "ShiftBack",
    "ShiftHeld",
    "Started",
    "StoreBack",
    "StoreDamaged",
    "StoreFailed",
    "StoreFull",
    "StoreOutdated",
    "StoreVanished",
    "Superseded",
    "TookOver",
    "Uncordoned",
    "VersionReady",
    "VersionRefused",
    "VersionTried",
]

EVENTS: dict[EventReason, str] = {
    "BrakeOff": "The brake is released: enough clusters are back, or the stale time since their return has passed.",
    "BrakeOn": (
        "A third of all clusters fell silent together. Shares, desired states and DNS stay as they are. Check the "
        "controller's own network first; cordon the clusters that are really gone."
    ),
    "BrokerFound": "The connection to the MQTT broker is back.",
    "BrokerLost": "The connection to the MQTT broker is lost. Nothing is decided until it is back.",
    "ClockInStep": "The agent's clock agrees with the controller's again.",
    "ClockSkew": (
        "The agent's clock differs from the controller's. No decision depends on it; correct the clock that is wrong."
    ),
    "ClockWentBack": (
        "The controller's wall clock was set back. Durations are measured by the monotonic clock, so plans go on."
    ),
    "ClusterLost": (
        "A cluster was silent for longer than any policy tolerates. Its replicas are replaced elsewhere; none is "
        "deleted in it."
    ),
    "ClusterReady": "A report of the cluster arrived, and the cluster is trusted again.",
    "ClusterUnreachable": "A cluster is silent, or its connection broke. Its requests go to other clusters at once.",
    "Committed": "A plan is stored and in force. The message gives its epoch, generation and changes.",
    "Confirmed": "An operator confirmed what a cluster claims (`isochrone confirm`).",
    "ControllerSlept": (
        "The controller's process did not run for a while. It listens again before it judges any silence."
    ),
    "Cordoned": "An operator cordoned or drained a cluster.",
    "ForcedChangeDone": "All steps of a forced change are carried out.",
    "ForcedChangeHalted": (
        "A forced change stopped: more requests are unserved, or more replicas fail, than was foretold. Hand in the "
        "earlier documents, or the same again with `--force`."
    ),
    "ForcedChangeResumed": "A halted change goes on, because it was handed in again with `--force`.",
    "GatewayAccepted": "A gateway accepts resources of this kind again.",
    "GatewayConnected": "A gateway connected by xDS.",
    "GatewayGone": "A gateway's connection ended. It goes on with its last good configuration.",
    "GatewayRefused": (
        "A gateway refused an update (NACK) and goes on with its last good configuration. The message quotes Envoy."
    ),
    "GatewayUnknown": "A gateway names a cluster that no Cluster document names. It gets no configuration.",
    "ManifestFailed": (
        "The manifest beside the database cannot be written. Damage of the database could stay unnoticed until it can."
    ),
    "MessageRefused": "A message of an agent cannot be decoded. It is told once for as long as it goes on.",
    "ModelFails": (
        "A model fails for a cause of its own in two clusters and is ready nowhere. No third cluster is tried."
    ),
    "ModelPlannedAgain": "A model that was set aside is part of the plan again.",
    "ModelSetAside": (
        "Planning fails on this model alone. It keeps its target, orders and routes, and is tried again in each cycle."
    ),
    "NameTaken": "A second agent reports under the name of a cluster. The first keeps the name.",
    "NoGateway": (
        "A cluster serves users of others and its Cluster document names no gateway, so nothing can be sent to it."
    ),
    "OtherController": "Another controller leads this fleet. The one with the lower epoch makes no decisions.",
    "OtherControllerDoubted": (
        "A heartbeat claims an epoch that few agents obey. It is not believed without `--take-over`."
    ),
    "OverTarget": (
        "Clusters serve a model beyond its target utilisation, because its users would otherwise go unserved."
    ),
    "PlanNotKept": "A plan's generation cannot be written to the manifest. Agents get no new orders until it can.",
    "PolicyAccepted": "A revision of a policy file is in force.",
    "PolicyDirectoryLost": "The policy directory cannot be read. The policies in force stay.",
    "PolicyDoubtful": (
        "A policy file is in force and names something that nothing bears, or demands more than the stock holds."
    ),
    "PolicyFileGone": (
        "A policy file is gone from the directory and stays in force. `isochrone delete policy NAME` withdraws it."
    ),
    "PolicyForced": "A policy change that does harm was forced. The message gives actor and reason.",
    "PolicyMoved": "Documents moved to another policy file.",
    "PolicyNotForeseen": "A policy is in force, and the engine could not be asked what it would do.",
    "PolicyNotStored": "Changed policy files cannot be stored and are not in force. They are tried again.",
    "PolicyOutdated": (
        "A stored policy file is no longer valid for this version. It stays in force; hand in a valid one."
    ),
    "PolicyRefused": (
        "A policy file is refused, and the revision before it stays in force. The message gives file, line and column."
    ),
    "PolicyWaits": "A changed policy file waits: what it would do is judged once the clusters are heard.",
    "PolicyWithdrawn": "A policy file is withdrawn.",
    "PriceFeedFailed": (
        "A price feed could not be read. Its last good prices stay in force and age; the message says what is wrong "
        "with it."
    ),
    "PriceFeedRead": "A price feed is read for the first time, or again after it failed.",
    "PricesDoubted": (
        "Prices of a feed are left out or wait: they jumped, are out of bounds, in another currency, or no numbers."
    ),
    "PrometheusFailed": (
        "Prometheus could not be asked. What it said stays in force until it is old; see `isochrone get demand`."
    ),
    "PrometheusRead": "Prometheus has figures for the first time, or again after it failed.",
    "Refused": "An agent refused a desired state. The message gives its reason.",
    "Replaced": (
        "The replicas of a silent cluster are replaced elsewhere: what their users lose by the silence came to the "
        "cost of new starts."
    ),
    "ReplicasFailed": (
        "Replicas did not become ready within the warm-up, or died repeatedly. The pool is tried again after a "
        "back-off."
    ),
    "ReplicasNotReady": "Fewer replicas are ready than ordered. The message gives the cause that the agent saw.",
    "ReplicasRecovered": "A pool on which replicas failed has ready replicas again.",
    "RoundTripsDoubted": (
        "Browsers measure a cluster faster than light in fibre. The place of their cell or of the cluster is wrong; "
        "what they measure of the pair is not used."
    ),
    "SequenceWentBack": "The sequence numbers of an agent's reports went back without a restart.",
    "ShiftBack": (
        "A receiving cluster degraded after a step. Its requests go back; the shift is tried again after "
        "`retrySeconds`."
    ),
    "ShiftHeld": "A shift waits: the receiving cluster has more errors or more latency than policy allows.",
    "Started": "The controller started. The message gives its epoch and what it found in the store.",
    "StoreBack": "The store can be written again. What was kept in memory is stored.",
    "StoreDamaged": "Rows of the database were damaged. Intact rows are kept; the damaged file is set aside.",
    "StoreFailed": "The store cannot be written. Routing and plans go on from memory; orders of people are refused.",
    "StoreFull": "The disk is full. Routing and plans go on from memory; orders of people are refused with 507.",
    "StoreOutdated": (
        "Agents obey an order of this epoch that the database does not hold: the database is older than the last "
        "start. The controller takes the next epoch."
    ),
    "StoreVanished": "The database file vanished while it was open. It is written again.",
    "Superseded": "Another controller has the database. This one decides nothing more and is not ready.",
    "TookOver": "The controller took an epoch beyond that of another controller (`--take-over`).",
    "Uncordoned": "An operator let a cluster take load again.",
    "VersionReady": "A replica of the new version is ready. The version goes to all pools.",
    "VersionRefused": "A new version failed in two clusters and goes no further.",
    "VersionTried": "A new version starts in one pool first.",
}
