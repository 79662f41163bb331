"""Mixtures as points: weights of zero or more that sum to 1."""

from __future__ import annotations

import numpy as np


def cap_weights(weights: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """The same weights with none above its cap: the others take over in proportion, [units]."""
    weights = np.maximum(weights, 0) / np.maximum(weights, 0).sum()
    for _ in range(len(weights)):
        if not (weights > caps).any():
            break
        spare = np.maximum(weights - caps, 0).sum()
        room = np.where(weights >= caps, 0.0, weights)
        weights = np.minimum(weights, caps)
        if not room.sum():
            room = caps - weights
        weights = weights + spare * room / room.sum()
    return weights / weights.sum()
