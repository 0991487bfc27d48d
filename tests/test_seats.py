"""What was let go of in another object is believed to lie in its seat."""

import numpy as np
import pytest

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.perception import camera, fusion, seats
from reinforcegen_envs.poses import invert, rotation, to_pose7, translation
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.tasks.base import Seat

SEAT = Seat("base", (0.01, 0.0, 0.03), slack=0.002, turns=4)
SEATED = [(name, thing) for name, task in sorted(TASKS.items()) for thing in task.seats]


def there(x, y, z, yaw=0.0, lean=0.0):
    return translation(x, y, z) @ rotation([0.0, 0.0, yaw]) @ rotation([lean, 0.0, 0.0])


def test_what_is_near_its_seat_lies_in_it():
    frame = there(0.2, -0.1, 0.9, 0.7)
    placed = invert(frame) @ seats.seated(frame @ there(0.011, 0.001, 0.045, 1.5, 0.1), frame, SEAT)
    np.testing.assert_allclose(placed, there(0.011, 0.001, 0.03, np.pi / 2), atol=1e-9)
    # Farther out than it can be: as far out as it can be.
    placed = invert(frame) @ seats.seated(frame @ there(0.01, 0.01, 0.03), frame, SEAT)
    np.testing.assert_allclose(placed, there(0.01, 0.002, 0.03), atol=1e-9)
    # A seat that leaves the yaw free.
    free = Seat("base", SEAT.position, SEAT.slack)
    placed = invert(frame) @ seats.seated(frame @ there(0.01, 0.0, 0.05, 1.5), frame, free)
    np.testing.assert_allclose(placed, there(0.01, 0.0, 0.03, 1.5), atol=1e-9)


@pytest.mark.parametrize("pose", [there(0.01, 0.0, 0.07), there(0.05, 0.0, 0.03), there(0.01, 0.0, 0.03, 0.0, 0.4)])
def test_what_is_far_or_leans_is_where_it_is_seen(pose):
    frame = there(0.2, -0.1, 0.9, 0.7)
    np.testing.assert_array_equal(seats.seated(frame @ pose, frame, SEAT), frame @ pose)


def test_what_is_round_a_peg_has_fallen():
    frame, peg = there(0.2, -0.1, 0.9, 0.7), Seat("base", SEAT.position, SEAT.slack, fall=0.1)
    for height, lies in ((0.01, 0.03), (0.05, 0.03), (0.12, 0.03), (0.14, 0.14)):
        placed = invert(frame) @ seats.seated(frame @ there(0.011, 0.001, height, 1.5), frame, peg)
        np.testing.assert_allclose(placed, there(0.011, 0.001, lies, 1.5), atol=1e-9)


def over_its_seat(task, thing, height):
    """An engine whose object hangs over its seat in the middle of the table, at one of the yaws that it may have."""
    engine = Engine(TASKS[task], "D0")
    engine.rng = np.random.default_rng(0)
    engine.reset()
    seat = engine.task.seats[thing]
    frame = engine.task.object_pose(engine.sim, seat.reference)
    pose = frame @ translation(*seat.position) @ translation(0.0, 0.0, height)
    engine.task.write_pose7(engine.sim, thing, to_pose7(pose))
    engine.sim.data.qvel[:] = 0.0
    engine.sim.refresh()
    return engine


@pytest.mark.parametrize(("task", "thing"), SEATED)
def test_seats_are_where_objects_come_to_rest(task, thing):
    engine = over_its_seat(task, thing, 0.012)
    for name in engine.task.joints:  # lids out of the way
        if "lid" in name:
            engine.sim.data.qpos[engine.sim.model.joint(name).qposadr[0]] = 2.0
    for _ in range(20):
        engine.act(np.array([0.0] * 6 + [-1.0]))
    seat = engine.task.seats[thing]
    off = invert(engine.task.object_pose(engine.sim, seat.reference)) @ engine.task.object_pose(engine.sim, thing)
    assert off[2, 3] == pytest.approx(seat.position[2], abs=5e-4)
    assert np.hypot(*(off[:2, 3] - seat.position[:2])) < 2 * seat.slack


@pytest.mark.parametrize(("task", "thing"), SEATED)
def test_every_seat_is_of_a_stage_that_brings_the_object_to_it(task, thing):
    assert any(s.held == thing and s.reference == TASKS[task].seats[thing].reference for s in TASKS[task].stages)


def test_it_slides_into_its_seat_a_moment_after_the_hand_has_opened():
    engine = Engine(TASKS["Coffee"], "D0")
    engine.rng = np.random.default_rng(0)
    engine.reset()
    grip, pod = camera.Grip(engine.task), engine.task.objects.index("coffee_pod")

    def step(stage, gripper):
        engine.sim.controller[GRIPPER] = gripper
        return grip.update(engine.sim, stage)

    for _ in range(camera.STARTING + 1):
        step(0, 1.0)
    assert step(1, 1.0)[pod] == fusion.HAND and not grip.settled.any()
    for _ in range(seats.DROP):
        step(1, -1.0)
        assert grip.put_down[pod] and not grip.settled.any()
    step(1, -1.0)
    assert grip.settled[pod]
    for _ in range(camera.STARTING + 1):
        step(0, 1.0)  # it is taken up again
    assert not grip.settled.any()
