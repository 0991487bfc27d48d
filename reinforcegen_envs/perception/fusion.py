"""Estimates fused in time: every control step's evidence is added to what was known, which slowly fades.

Each of an object's vectors (see `vectors`) has a mean and a precision (inverse covariance), kept in a *carrier* frame, the
one that the object moves with: the world, or the hand once it has closed on the object. Evidence comes in both frames, as a
network gives it, and is turned into the carrier's. Constants are ours, found by fusing recorded estimates of five tasks again
(see docs/perception_log.md).
"""

from __future__ import annotations

import numba
import numpy as np

from reinforcegen_envs.typing import Array, Flags, Integers

WORLD, HAND = 0, 1  # carriers
NONE = -1  # nothing is known yet
# Part of the precision that is left after a control step: a row a carrier, of position and directions. In the hand an object is
# seen from one side alone, so what was seen before it was taken is worth keeping.
FADING = np.array([[0.985, 0.995], [0.99, 0.999]])
# The same in the hand, of what is so thin between the fingers that it swings: a mug that is held by its wall.
SWINGING = np.array([0.9, 0.9])
# Part of position's and directions' precision that is left when the carrier changes: the fingers move what they close on.
HANDOVER = np.array([0.2, 1.0])
# Squared Mahalanobis distance, of 3 numbers, of positions and directions, beyond which what was known fades faster.
SURPRISE = np.array([30.0, 12.0])
# How much faster, a row a carrier: positions if the position surprises, directions then, and directions if one of them surprises.
# In the hand a surprising position is news of the whole pose; surprising directions are mostly mistaken for others.
SURPRISED = np.array([[0.8, 1.0, 0.99], [0.5, 0.5, 0.99]])
# Least part of what was known that counts when new evidence is judged.
JUDGED = 0.01
# Part of the evidence that counts of directions that surprise of what cannot turn by itself, in the hand or where the reset left
# it: a nut whose handle the hand hides looks alike at four yaws, and a quarter turn away was believed after a second of clear
# pictures.
DOUBT = 0.02
# Part of the precision that is left, beside, of what the hand has just let go of: it falls, or slides into place.
LOOSE = 0.7
UNIT = 0.1  # metres: positions are in this unit, so that all of a network's outputs are about 1
CENTRE = np.array([0.0, 0.0, 0.88])  # metres, world frame: what positions are measured from
HAND_UNIT = 0.2  # metres: the hand's position in proprioception is in this unit


@numba.njit(cache=True)
def _turned(rotation, precision):
    """R P R^T."""
    return rotation @ precision @ rotation.T


@numba.njit(cache=True)
def evidence(
    mean: Array, variance: Array, hand_position: Array, hand_rotation: Array, carrier: int
) -> tuple[Array, Array]:
    """One object's estimates in both frames as one, in a carrier's frame.

    Args:
        mean, variance: (2, 3, 3): frame (world, hand), vector, number; positions in `UNIT` from `CENTRE`, or from the hand.
        hand_position, hand_rotation: (3,) in `UNIT` from `CENTRE`, and (3, 3), of the grip site.
        carrier: `WORLD` or `HAND`.

    Returns:
        means (3, 3) and precisions (3, 3, 3), one a vector, in the carrier's frame.
    """
    means, precisions = np.empty((3, 3)), np.empty((3, 3, 3))
    to_hand = np.ascontiguousarray(hand_rotation.T)
    for k in range(3):
        in_world, in_hand = np.diag(1.0 / variance[0, k]), np.diag(1.0 / variance[1, k])
        if carrier == WORLD:
            in_hand = _turned(hand_rotation, in_hand)
            from_world, from_hand = mean[0, k].copy(), hand_rotation @ mean[1, k]
            if k == 0:
                from_hand += hand_position
        else:
            in_world = _turned(to_hand, in_world)
            from_world, from_hand = mean[0, k].copy(), mean[1, k].copy()
            if k == 0:
                from_world -= hand_position
            from_world = to_hand @ from_world
        precisions[k] = in_world + in_hand
        means[k] = np.linalg.solve(precisions[k], in_world @ from_world + in_hand @ from_hand)
    return means, precisions


@numba.njit(cache=True)
def carry(means: Array, precisions: Array, hand_position: Array, hand_rotation: Array, carrier: int) -> None:
    """Turn what is known of an object, in place, from the other carrier's frame into ``carrier``'s."""
    if carrier == HAND:
        means[0] -= hand_position
    rotation = np.ascontiguousarray(hand_rotation.T) if carrier == HAND else np.ascontiguousarray(hand_rotation)
    for k in range(3):
        means[k] = rotation @ means[k]
        precisions[k] = _turned(rotation, precisions[k])
    if carrier == WORLD:
        means[0] += hand_position


@numba.njit(cache=True)
def fuse(
    means: Array,
    precisions: Array,
    carriers: Integers,
    mean: Array,
    variance: Array,
    hand_position: Array,
    hand_rotation: Array,
    new_carriers: Integers,
    loose: Flags,
    swinging: Flags,
    untouched: Flags,
) -> None:
    """Add a control step's evidence to what is known of all objects, in place.

    Args:
        means, precisions: (objects, 3, 3) and (objects, 3, 3, 3), in the frames of ``carriers``.
        carriers: (objects,) int64; `NONE` where nothing is known yet.
        mean, variance: (objects, 2, 3, 3), see `evidence`.
        hand_position, hand_rotation: see `evidence`.
        new_carriers: (objects,) int64, from now on.
        loose: (objects,) bool: the hand has just let go of it.
        swinging: (objects,) bool: the hand has it by something thin.
        untouched: (objects,) bool: it is where the reset left it.
    """
    for n in range(means.shape[0]):
        new, weight = evidence(mean[n], variance[n], hand_position, hand_rotation, new_carriers[n])
        if carriers[n] == NONE:
            means[n], precisions[n], carriers[n] = new, weight, new_carriers[n]
            continue
        if carriers[n] != new_carriers[n]:
            carry(means[n], precisions[n], hand_position, hand_rotation, new_carriers[n])
            for k in range(3):
                precisions[n, k] *= HANDOVER[min(k, 1)]
            carriers[n] = new_carriers[n]
        swings = swinging[n] and carriers[n] == HAND
        fading = SWINGING if swings else FADING[carriers[n]]
        surprised = np.zeros(2, np.bool_)
        for k in range(3):
            # A long memory's precision says more than it knows, as errors of consecutive pictures are alike: it is judged
            # by what one fading time adds, or little more.
            kind = min(k, 1)
            away = new[k] - means[n, k]
            spread = np.linalg.inv(weight[k]) + np.linalg.inv(precisions[n, k] * max(1.0 - fading[kind], JUDGED))
            if away @ np.linalg.solve(spread, away) > SURPRISE[kind]:
                surprised[kind] = True
        for k in range(3):
            left = fading[min(k, 1)] * (LOOSE if loose[n] else 1.0)
            if surprised[0]:
                left *= SURPRISED[carriers[n], min(k, 1)]
            if surprised[1] and k > 0:
                left *= SURPRISED[carriers[n], 2]
            fixed = untouched[n] or (carriers[n] == HAND and not swings)
            doubtful = k > 0 and fixed and surprised[1] and not surprised[0]
            kept, heard = left * precisions[n, k], (DOUBT if doubtful else 1.0) * weight[k]
            total = kept + heard
            means[n, k] = np.linalg.solve(total, kept @ means[n, k] + heard @ new[k])
            precisions[n, k] = total


@numba.njit(cache=True)
def in_world(means: Array, hand_position: Array, hand_rotation: Array, carrier: int) -> Array:
    """An object's vectors (3, 3) in the world frame, the position in metres."""
    out = means.copy()
    if carrier == HAND:
        for k in range(3):
            out[k] = hand_rotation @ means[k]
        out[0] += hand_position
    out[0] = out[0] * UNIT + CENTRE
    return out
