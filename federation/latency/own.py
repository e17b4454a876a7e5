"""What users' own measurements change: of their pairs, and of those of users near them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from federation.latency.kernel import Floats, Sites, alike, weights
from federation.latency.mesh import Mesh
from federation.latency.sphere import Vectors, arc_km, between_km

NEIGHBOURS = 8
"""Measured users near one whose measurements count."""
MOST_EACH = 8
"""Measurements of a user that count."""
SHARED = 0.25
OWN, OWN_FAR = 0.05**2, 0.15**2
"""What a user has alone: with every cluster, and alike with clusters near each other."""
NOISE2 = 0.16**2
PADDED = 1e6
"""Variance of a measurement that is not there."""
Singles = NDArray[np.float32]


class Own:
    """Args: users: [users]; clusters: [clusters], where they rather are. similar: [users, sites] of the mesh."""

    def __init__(self, mesh: Mesh, users: Vectors, clusters: Vectors, similar: Singles) -> None:
        self._users, self._similar = users, similar
        unit = alike(np.zeros(1))[0]
        self._unit = unit
        self._explain = mesh.explain.astype(np.float32)
        self.alike = (alike(between_km(clusters, clusters)) / unit).astype(np.float32)
        self._cluster = np.full((len(users), MOST_EACH), -1, np.int64)
        self._left = np.zeros((len(users), MOST_EACH))
        self._measured = np.zeros(0, np.int64)
        self._known = np.zeros((0, len(mesh.at)), np.float32)

    def tell(self, user: int, clusters: Sites, left: Floats) -> None:
        """What a user's measurements are now. Args: left: logarithm of each, less that of the mesh; the best first."""
        count = min(MOST_EACH, len(clusters))
        self._cluster[user] = -1
        self._cluster[user, :count], self._left[user, :count] = clusters[:count], left[:count]

    def settle(self) -> None:
        """After the first `tell`, or one of a user who had no measurements: who is near whom is looked up in these."""
        self._measured = np.flatnonzero((self._cluster >= 0).any(axis=1))

    def rows(self, users: Sites) -> tuple[Singles, Singles]:
        """[users, clusters]: what is to be added to the logarithm, and how much less its variance is."""
        shape = len(users), len(self.alike)
        if not len(self._measured):
            return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        group = self._group(users)  # [B, 1 + N] users, -1 for none
        width = self._cluster.shape[1]
        there = self._cluster[group]  # [B, 1 + N, m]
        there[group < 0] = -1
        width = max(1, int((there >= 0).sum(axis=2).max()))
        there = there[:, :, :width]
        batch = len(group)
        flat = there.reshape(batch, -1)
        is_there = flat >= 0
        y = np.where(is_there, self._left[group][:, :, :width].reshape(batch, -1), 0.0)
        between = np.repeat(np.repeat(self._unexplained(group), width, axis=1), width, axis=2)
        far = self.alike[flat[:, :, None], flat[:, None, :]]
        mine = np.repeat(group, width, axis=1)
        same = mine[:, :, None] == mine[:, None, :]
        kernel = SHARED * between * far + same * (OWN + OWN_FAR * far)
        diagonal = np.arange(flat.shape[1])
        variance = np.where(is_there, NOISE2, PADDED)
        weight = np.ones_like(variance)
        for turn in range(2):
            matrix = kernel.astype(np.float64)
            matrix[:, diagonal, diagonal] += variance / weight
            alpha = np.linalg.solve(matrix, y[:, :, None])[:, :, 0]
            if turn == 0:
                weight = weights(variance * alpha, variance)
        alpha *= is_there
        own = mine == users[:, None]
        coefficient = alpha * (SHARED * between[:, 0, :] + OWN_FAR * own)
        spread = np.zeros(shape, np.float32)
        np.add.at(spread, (np.repeat(np.arange(batch), flat.shape[1]), flat.ravel()), coefficient.ravel())
        added = spread @ self.alike + (OWN * (alpha * own).sum(axis=1))[:, None].astype(np.float32)
        # How much less is unknown: by the user's own measurements alone.
        first = flat[:, :width]
        cross = (SHARED * between[:, 0, :1, None] + OWN_FAR) * self.alike[first] + OWN
        cross = np.where(is_there[:, :width, None], cross, 0.0)
        inverse = np.linalg.inv(matrix[:, :width, :width]).astype(np.float32)
        less = np.einsum("blc,blc->bc", cross, inverse @ cross.astype(np.float32))
        return added, less.astype(np.float32)

    def _group(self, users: Sites) -> Sites:
        """[users, 1 + neighbours]: each, and the measured ones that are nearest to it."""
        near = min(NEIGHBOURS, len(self._measured))
        closeness = self._users[users] @ self._users[self._measured].T
        closeness[users[:, None] == self._measured[None, :]] = -2.0
        if near < len(self._measured):
            some = np.argpartition(-closeness, near - 1, axis=1)[:, :near]
        else:
            some = np.broadcast_to(np.arange(near), (len(users), near))
        found = self._measured[some]
        found = np.where(np.take_along_axis(closeness, some, axis=1) < -1.5, -1, found)
        return np.column_stack([users, found])

    def _unexplained(self, group: Sites) -> Floats:
        """[B, members, members]: how alike they are beyond what clusters tell."""
        at = self._users[group]
        cosine = at @ at.transpose(0, 2, 1)
        similar = self._similar[group]
        told = (similar @ self._explain) @ similar.transpose(0, 2, 1)
        return np.asarray(np.maximum((alike(arc_km(cosine)) - told) / self._unit, 0.0))
