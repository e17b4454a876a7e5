"""The types of conditions that an agent reports or the controller finds, each with its meaning and what follows.

The reference of the documentation is generated from `CONDITIONS`. On the wire a type is any string: an agent of another
version may report one that is not listed here.
"""

from __future__ import annotations

from typing import Literal

from federation.wire import messages

ConditionType = Literal[
    "BadAutoscalerStatus",
    "BadDevice",
    "BadLabel",
    "BadNodePool",
    "BadQuantity",
    "CellDisputed",
    "ClockSkew",
    "Conflict",
    "CountDoubted",
    "CutDevice",
    "DemandDoubted",
    "DemandFileRefused",
    "DemandGrew",
    "DeviceApiTooOld",
    "DeviceTainted",
    "DeviceUnhealthy",
    "DevicesDoubted",
    "DevicesMissing",
    "Drifted",
    "EngineUnread",
    "Forbidden",
    "ImplausibleCell",
    "ImplausibleDemand",
    "ImplausibleDevices",
    "ImplausibleMemory",
    "ImplausiblePool",
    "ImplausiblePrice",
    "ImplausibleReplicas",
    "ImplausibleRoundTrip",
    "IncompletePool",
    "MemoryUnknown",
    "NameTaken",
    "NoDevicePlugin",
    "NoDemandSource",
    "NoNode",
    "NotAllowed",
    "NotCarriedOut",
    "NotOfOneNode",
    "NotOrdered",
    "Notice",
    "ObeysAnother",
    "PlaceDoubted",
    "PriceDoubted",
    "ReportCut",
    "ReportRowLeftOut",
    "RoundTripDoubted",
    "SharedDevice",
    "SourceRefused",
    "StaleAutoscalerStatus",
    "StopNotExplained",
    "TooManyPools",
    "TrafficKindMissing",
    "TrafficNotWritten",
    "TwoWays",
    "UnknownAccelerator",
    "Unverified",
    "UpdateWaits",
]

CONDITIONS: dict[ConditionType, str] = {
    "BadAutoscalerStatus": "The cluster autoscaler's status cannot be read. Its growth is not counted.",
    "BadDevice": "A device of a ResourceSlice contradicts itself. It is not counted.",
    "BadLabel": "A label of a node contradicts its device plugin. These devices are not counted.",
    "BadNodePool": (
        "A Karpenter NodePool cannot be read, or promises what its limits rule out. Its growth is not counted."
    ),
    "BadQuantity": "A quantity of a node is no number of devices. It is not counted.",
    "CellDisputed": (
        "As many front doors say one country of a cell as another. Residency of all of them holds. Declare the cell "
        "in a Cluster document."
    ),
    "ClockSkew": (
        "The agent's clock differs from the controller's. No decision depends on it; correct the clock that is wrong."
    ),
    "Conflict": (
        "Another manager holds a field of our object by server-side apply, or an object of that name is not ours. "
        "It is left as it is."
    ),
    "CountDoubted": "A node offers another number of devices than its labels describe.",
    "CutDevice": "A partitioned device is offered whole as well. What a claim holds part of is not counted.",
    "DemandDoubted": (
        "A front door counts far more than was known. A part is believed; the rest as it lasts, or at once by "
        "`isochrone confirm`."
    ),
    "DemandFileRefused": "The demand file cannot be read. The counts before it stay until they are old.",
    "DemandGrew": (
        "A front door counts more than one step above what was known. The growth is served last in a shortage."
    ),
    "DeviceApiTooOld": "The API server does not serve a version of Dynamic Resource Allocation that the agent reads.",
    "DeviceTainted": "A device has a taint. It is not counted.",
    "DeviceUnhealthy": "The device's driver says that it is unhealthy. It is not counted.",
    "DevicesDoubted": "A cluster claims more devices than plans count on. Declare them in the Cluster document.",
    "DevicesMissing": (
        "Ready replicas hold devices that no node offers, as while a device plugin restarts. They count for ten "
        "minutes."
    ),
    "Drifted": "Somebody changed a field of our object. It is put right, unless `selfHeal` is off.",
    "EngineUnread": (
        "No replica of a model gives its engine's metrics. How busy they are is not known, and their capacity is taken "
        "as declared."
    ),
    "Forbidden": "The agent lacks a right. Apply the manifests of `deploy/kustomize/agent` again.",
    "ImplausibleCell": "A front door's count of a cell is left out. The message says why.",
    "ImplausibleDemand": "A front door counts more than the bound of its cluster (`maxRequestsPerSecond`).",
    "ImplausibleDevices": "A count of devices cannot be true. The last good value stays.",
    "ImplausibleMemory": "A device's memory cannot be true. The last good value stays.",
    "ImplausiblePool": "A report names a pool twice. The first counts.",
    "ImplausiblePrice": "A price is far below the catalogue's. The last good value stays.",
    "ImplausibleReplicas": "More replicas are ready than the devices can hold. The excess is not believed.",
    "ImplausibleRoundTrip": "A round trip is faster than light in fibre. It is not believed; a place may be wrong.",
    "IncompletePool": "A driver has not published all slices of a pool. The pool is not counted until it has.",
    "MemoryUnknown": "A driver does not say the memory of its devices. Models that need a minimum do not run on them.",
    "NameTaken": "A second agent reports under the name of this cluster. The first keeps the name.",
    "NoDevicePlugin": "A node has accelerators and no device plugin that offers them.",
    "NoDemandSource": (
        "Replicas of a model run here, and nobody counts its users: no front door anywhere, no gateway, no engine. "
        "Plans keep what the policy asks for and add nothing. Give the agent a gateway's statistics, or a demand file."
    ),
    "NoNode": "A ResourceSlice names a node that does not exist.",
    "NotAllowed": "The owner's limits forbid what was ordered.",
    "NotCarriedOut": "The API server refused an object. The message quotes it.",
    "NotOfOneNode": "A device is reachable from several nodes. It is not counted.",
    "NotOrdered": (
        "Replicas run of a model that no document and no plan names. Hand in its documents, or delete its objects."
    ),
    "Notice": "A provider or an autoscaler announces that it takes the node. Its devices are leaving.",
    "ObeysAnother": "The agent obeys a higher epoch than this controller's.",
    "PlaceDoubted": "Measurements prove that a cluster is not where the catalogue has it.",
    "PriceDoubted": "A price jumped tenfold. The last one stays until the new one has lasted.",
    "ReportCut": "A report was too large; its least important rows are left out.",
    "ReportRowLeftOut": "A row of a report cannot be sent. The message says why.",
    "RoundTripDoubted": "A round trip jumped tenfold. The last one stays until the new one has lasted.",
    "SharedDevice": "A device is shared. It is not counted.",
    "SourceRefused": (
        "Measurements of a cluster cannot be true, or disagree with those of most of its peers. They are not believed."
    ),
    "StaleAutoscalerStatus": "The cluster autoscaler's status is old. Its growth is not counted.",
    "StopNotExplained": (
        "The controller orders fewer replicas without a reason that the agent can verify. The replicas stay."
    ),
    "TooManyPools": "The cluster has more pools than a report holds. The smallest are left out.",
    "TrafficKindMissing": (
        "A kind of traffic object is not installed in the cluster (Gateway API, multi-cluster Services or ExternalDNS)."
    ),
    "TrafficNotWritten": "A traffic object cannot be written. The message quotes the API server.",
    "TwoWays": (
        "The same devices are offered by a device plugin and by Dynamic Resource Allocation. They are not counted."
    ),
    "UnknownAccelerator": "A node has accelerators that the agent cannot order. They are not counted.",
    "Unverified": "No label of a vendor vouches for the product. Its memory is unknown.",
    "UpdateWaits": "An update waits for free devices. The old replicas serve.",
}


def condition(kind: ConditionType, subject: str, message: str) -> messages.Condition:
    """A condition of a listed type. The caller keeps to the wire's bounds on length."""
    return messages.Condition(type=kind, object=subject, message=message)
