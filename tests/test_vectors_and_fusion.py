"""Poses as vectors, and estimates fused in time."""

from __future__ import annotations

import numpy as np
import pytest

from reinforcegen_envs.perception import fusion
from reinforcegen_envs.perception.vectors import aligned, decode, encode, rotated
from reinforcegen_envs.poses import rotvec_to_matrix


def turn(angle):
    return rotvec_to_matrix(np.array([0.0, 0.0, angle]))


def poses(count, lean=0.4):
    rng = np.random.default_rng(0)
    for _ in range(count):
        lean_by = rotvec_to_matrix(np.append(rng.normal(size=2) * lean, 0.0))
        yield rng.normal(size=3), np.ascontiguousarray(lean_by @ turn(rng.uniform(-np.pi, np.pi)))


@pytest.mark.parametrize("turns", [0, 1, 2, 4])
def test_a_decoded_pose_has_the_same_vectors(turns):
    for position, rotation in poses(50):
        vectors = encode(position, rotation, turns)
        decoded, _ = decode(vectors, turns, 0.0, np.nan)
        np.testing.assert_allclose(decoded @ decoded.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(decoded) > 0
        np.testing.assert_allclose(encode(position, decoded, turns), vectors, atol=1e-9)
        if turns == 1:
            np.testing.assert_allclose(decoded, rotation, atol=1e-12)


@pytest.mark.parametrize(("turns", "angle"), [(2, np.pi), (4, np.pi / 2), (4, -np.pi), (0, 1.234)])
def test_poses_that_look_the_same_have_the_same_vectors(turns, angle):
    for position, rotation in poses(20):
        turned = np.ascontiguousarray(rotation @ turn(angle))
        np.testing.assert_allclose(encode(position, turned, turns), encode(position, rotation, turns), atol=1e-9)


def test_of_yaws_that_look_the_same_the_nearest_to_the_last_is_meant():
    vectors = encode(np.zeros(3), turn(0.3), 4)
    for last in (0.2, 0.3 + np.pi, -2.8, 6.0):
        rotation, yaw = decode(vectors, 4, 0.0, last)
        assert abs(yaw - last) <= np.pi / 4
        np.testing.assert_allclose(rotation, turn(yaw), atol=1e-12)
    assert decode(vectors, 4, 0.0, np.nan)[1] == pytest.approx(0.3)
    assert decode(vectors, 4, 0.4, np.nan)[1] == pytest.approx(0.3 + np.pi / 2)


@pytest.mark.parametrize("turns", [0, 1, 2, 4])
def test_a_turned_object_has_turned_directions(turns):
    for _, rotation in poses(20, lean=0.5):
        more = np.ascontiguousarray(rotvec_to_matrix(np.array([0.2, -0.1, 0.7])))
        before = 3.0 * encode(np.zeros(3), rotation, turns)[1:]
        after = rotated(np.ascontiguousarray(before), turns, more)
        np.testing.assert_allclose(after, 3.0 * encode(np.zeros(3), more @ rotation, turns)[1:], atol=1e-9)


def test_an_upside_down_object_has_a_pose():
    rotation = np.diag([1.0, -1.0, -1.0])
    for turns in (0, 2):
        decoded, _ = decode(encode(np.zeros(3), rotation, turns), turns, 0.0, np.nan)
        np.testing.assert_allclose(decoded[:, 2], [0.0, 0.0, -1.0])


class Known:
    """What is known of one object, whose hand stands still."""

    def __init__(self, carrier=fusion.WORLD):
        self.means, self.precisions = np.zeros((1, 3, 3)), np.zeros((1, 3, 3, 3))
        self.carriers = np.array([fusion.NONE])
        self.carrier = carrier
        self.hand = np.array([1.0, 2.0, 0.5]), np.ascontiguousarray(rotvec_to_matrix(np.array([0.3, -0.2, 1.0])))

    def add(self, vectors, variance, hand=None, carrier=None, loose=False, swinging=False, untouched=False):
        """Evidence that says the same in both frames."""
        self.hand = hand or self.hand
        self.carrier = self.carrier if carrier is None else carrier
        position, rotation = self.hand
        in_hand = (vectors - np.array([position, np.zeros(3), np.zeros(3)])) @ rotation
        mean = np.stack([vectors, in_hand])[None]
        fusion.fuse(
            self.means, self.precisions, self.carriers, mean, np.full((1, 2, 3, 3), variance),
            position, rotation, np.array([self.carrier]), np.array([loose]), np.array([swinging]), np.array([untouched]),
        )  # fmt: skip

    def vectors(self):
        position, rotation = self.hand
        out = fusion.in_world(self.means[0], position, rotation, self.carriers[0])
        out[0] = (out[0] - fusion.CENTRE) / fusion.UNIT
        return out


@pytest.mark.parametrize("carrier", [fusion.WORLD, fusion.HAND])
def test_repeated_noisy_evidence_is_averaged(carrier):
    rng, true = np.random.default_rng(0), np.array([[0.5, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    known = Known(carrier)
    single, fused = [], []
    for step in range(300):
        seen = true + rng.normal(size=(3, 3)) * 0.05
        known.add(seen, 0.05**2)
        if step > 100:
            single.append(np.abs(seen - true).mean())
            fused.append(np.abs(known.vectors() - true).mean())
    assert np.mean(fused) < 0.3 * np.mean(single)


def test_the_surer_evidence_counts_for_more():
    known, low, high = Known(), np.zeros((3, 3)), np.ones((3, 3)) * 0.01
    known.add(low, 1e-4)
    known.add(high, 1e-2)
    assert np.abs(known.vectors()).max() < 0.002


def test_what_the_hand_holds_moves_with_it():
    known, vectors = Known(fusion.HAND), np.array([[0.5, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    known.add(vectors, 1e-4)
    position, rotation = known.hand
    known.hand = position + [0.1, 0.0, 0.2], np.ascontiguousarray(turn(0.5) @ rotation)
    moved = known.vectors()
    np.testing.assert_allclose(moved[1], turn(0.5) @ vectors[1], atol=1e-9)
    np.testing.assert_allclose(moved[0], position + [0.1, 0.0, 0.2] + turn(0.5) @ (vectors[0] - position), atol=1e-9)


def test_changing_the_carrier_keeps_the_pose():
    known, vectors = Known(), np.array([[0.5, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for _ in range(20):
        known.add(vectors, 1e-4)
    for carrier in (fusion.HAND, fusion.WORLD):
        known.add(vectors, 1e6, carrier=carrier)
        assert known.carriers[0] == carrier
        np.testing.assert_allclose(known.vectors(), vectors, atol=1e-6)


def test_a_surprise_is_learned_faster():
    """An object that was pushed: what was known before fades faster."""

    def steps_to_notice(shift):
        known = Known()
        for _ in range(200):
            known.add(np.zeros((3, 3)), 1e-4)
        for step in range(1, 200):
            known.add(np.full((3, 3), shift), 1e-4)
            if known.vectors()[0, 0] > 0.9 * shift:
                return step
        return 200

    assert steps_to_notice(0.5) < 0.5 * steps_to_notice(0.005)


def test_directions_that_contradict_do_not_undo_what_was_known_before_the_grasp():
    """In the hand a nut looks the same from one side at two yaws; before, its handle was seen."""
    known = Known()
    vectors = np.array([[0.5, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    flipped = vectors * [[1.0], [-1.0], [-1.0]]
    for _ in range(30):
        known.add(vectors, 1e-3)
    for step in range(100):
        known.add(flipped if step % 8 == 0 else vectors, 1e-3 if step % 8 == 0 else 0.1, carrier=fusion.HAND)
    assert known.vectors()[1] @ vectors[1] > 0


def test_an_object_does_not_turn_by_itself_though_every_picture_says_so():
    """A nut's yaw was known when the hand closed; from then on one side of it is seen, and taken for another."""
    known = Known()
    vectors = np.array([[0.5, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    turned = np.array([[0.5, -0.3, 0.1], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    for _ in range(40):
        known.add(vectors, 0.03)
    for _ in range(60):
        known.add(turned, 0.01, carrier=fusion.HAND)
    assert known.vectors()[1] @ vectors[1] > 0.95 * np.linalg.norm(known.vectors()[1])
    # The same before it closes: the hand over the nut hides its handle.
    known = Known()
    for _ in range(40):
        known.add(vectors, 0.03, untouched=True)
    for _ in range(60):
        known.add(turned, 0.01, untouched=True)
    assert known.vectors()[1] @ vectors[1] > 0.95 * np.linalg.norm(known.vectors()[1])
    # A few degrees, as fingers turn what they close on, are no surprise.
    a = np.deg2rad(8)
    settled = np.array([[0.5, -0.3, 0.1], [np.cos(a), np.sin(a), 0.0], [-np.sin(a), np.cos(a), 0.0]])
    known = Known()
    for _ in range(40):
        known.add(vectors, 0.03)
    for _ in range(100):
        known.add(settled, 0.01, carrier=fusion.HAND)
    x, y = known.vectors()[1, :2]
    assert np.arctan2(y, x) > 0.85 * a


def test_what_is_held_by_something_thin_may_swing():
    """A mug that is held by its wall turns about the fingers; a nut between them does not."""
    vectors = np.array([[0.5, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    a = np.deg2rad(20)
    swung = np.array([[0.5, -0.3, 0.1], [np.cos(a), np.sin(a), 0.0], [-np.sin(a), np.cos(a), 0.0]])
    angles = []
    for swinging in (False, True):
        known = Known()
        for _ in range(60):
            known.add(vectors, 0.01)
        for _ in range(50):
            known.add(swung, 0.01, carrier=fusion.HAND, swinging=swinging)
        x, y = known.vectors()[1, :2]
        angles.append(np.arctan2(y, x) / a)
    assert angles[0] < 0.55 and angles[1] > 0.62


def test_a_surprising_position_is_believed_in_the_hand():
    """What slipped out of the fingers does not move with them."""
    known, vectors = Known(fusion.HAND), np.array([[0.5, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for _ in range(200):
        known.add(vectors, 1e-4)
    for _ in range(10):
        known.add(vectors + [[0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], 1e-4)
    assert known.vectors()[0, 0] > 0.9


def test_what_was_let_go_of_is_followed():
    """A pod that drops into the machine by as little as is no surprise."""

    def left(loose):
        known = Known()
        for _ in range(200):
            known.add(np.zeros((3, 3)), 1e-2)
        for _ in range(8):
            known.add(np.full((3, 3), 0.1), 1e-2, loose=loose)
        return 0.1 - known.vectors()[0, 0]

    assert left(True) < 0.6 * left(False)


def test_aligning_turns_by_no_more_than_it_must():
    for _, rotation in poses(20, lean=1.0):
        z = np.array([0.3, -0.5, 1.7])
        turned = aligned(rotation, z)
        np.testing.assert_allclose(turned[:, 2], z / np.linalg.norm(z), atol=1e-12)
        np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
        angle = np.arccos(np.clip((np.trace(turned.T @ rotation) - 1) / 2, -1, 1))
        assert angle == pytest.approx(np.arccos(turned[:, 2] @ rotation[:, 2]), abs=1e-6)
    np.testing.assert_allclose(aligned(turn(0.7), np.array([0.0, 0.0, 1.0])), turn(0.7), atol=1e-12)
