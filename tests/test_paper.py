"""The experiments of benchmarks/paper: what they go on with, what they disturb, what they move from task to task."""

import dataclasses
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from reinforcegen_envs import evaluate
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import Episode
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.perception import ApproachErrors
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import load_mlps
from reinforcegen_envs.policies.skill import stage_features
from reinforcegen_envs.tasks import TASKS

PAPER = Path(__file__).parents[1] / "benchmarks" / "paper"
NAMES = ("cells", "training", "pose_noise", "replanning", "ablation", "full_rl", "transfer")


@pytest.fixture(scope="module")
def paper():
    """The scripts, as modules."""
    sys.path.insert(0, str(PAPER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(str(PAPER))
        for name in NAMES:
            sys.modules.pop(name, None)


@dataclasses.dataclass(frozen=True)
class Cell:
    task: str
    policy: str
    size: float


def test_a_table_goes_on_where_it_was_stopped(paper, tmp_path, monkeypatch):
    played = []

    def play(env, policy, seed):
        played.append((env, seed))
        return Episode(seed, seed % 2 == 0, True, failure="" if seed % 2 == 0 else "grasp: skill timeout")

    monkeypatch.setattr(paper.cells, "play", play)
    path = tmp_path / "table.csv"
    cells = [Cell("Square", "base", size) for size in (1.0, 0.5)]

    def fill(cells, episodes):
        played.clear()
        table = paper.cells.Table(path, Cell)
        paper.cells.fill(table, cells, lambda cell, weights: (cell, None), None, episodes, 10, 1)
        return len(played)

    assert fill(cells[:1], 7) == 7
    assert fill(cells, 7) == 7 and {env for env, _ in played} == {cells[1]}
    assert fill(cells, 4) == 0  # there is more than that
    assert fill(cells[1:], 8) == 1 and played == [(cells[1], 17)]
    table = paper.cells.Table(path, Cell)
    assert [(o.episodes, o.successes, o.first_seed) for o in table.rows.values()] == [(7, 4, 10), (8, 4, 10)]
    assert table.rows[cells[0]].failures == '{"grasp: skill timeout": 3}'
    assert table.rows[cells[1]] == paper.cells.Outcome.of(
        [play(None, None, 10 + i) for i in range(8)], table.rows[cells[1]].weights
    )
    table.tidy(lambda cell: cell.size)
    assert [cell.size for cell in paper.cells.Table(path, Cell).rows] == [0.5, 1.0]
    assert len(path.read_text().splitlines()) == 3
    monkeypatch.setattr(paper.cells, "fingerprint", lambda *_: "others")
    assert fill(cells, 7) == 14  # other weights
    with pytest.raises(InvalidArgument, match="has columns"):
        paper.cells.Table(path, paper.pose_noise.Cell)


def test_a_belief_that_gets_better_is_the_environment_s(paper):
    cell = paper.replanning.Cell("Threading", "D2", "tuned", "belief", 0.04, "0.01 0.1 0.5")
    env, _ = paper.replanning.make(cell, None)
    assert isinstance(env.unwrapped.engine.perception, ApproachErrors)  # pyright: ignore[reportAttributeAccessIssue]


def test_where_cameras_see_their_weights_count(paper):
    seen, known = (
        paper.replanning.Cell("Threading", "D2", "tuned", cause, 0.04, "off") for cause in ("camera", "push")
    )
    assert (seen.perception, known.perception) == ("camera", "truth")
    assert len({paper.cells.fingerprint("Threading", "tuned", None, cell.perception) for cell in (seen, known)}) == 2


def test_a_push_moves_the_first_object_once_and_while_the_hand_is_under_way(paper):
    env = gym.make("ReinforceGen/D2-Square-Hybrid-v0", initiation="student", replan=True)
    pushed = paper.replanning.Push(env, 0.05)
    engine = pushed.unwrapped.engine
    body = engine.task.object_body["square_nut"]
    seen = []
    engine.events.subscribe("control_step", lambda: seen.append(engine.sim.data.xpos[body].copy()))
    pushed.reset(seed=3)
    places = np.array(seen)
    moving = np.flatnonzero(np.linalg.norm(np.diff(places[:, :2], axis=0), axis=1) > 1e-3)
    assert np.linalg.norm(places[-1, :2] - places[0, :2]) == pytest.approx(0.05, abs=0.005)
    assert moving[-1] - moving[0] == paper.replanning.PUSH_STEPS - 1 and moving[-1] < len(places) - 1
    assert abs(places[-1, 2] - places[0, 2]) < 0.003
    for _ in range(3):  # the skill is left alone
        pushed.step(np.zeros(7))
    assert np.linalg.norm(seen[-1] - places[-1]) < 0.003
    seen.clear()
    pushed.reset(seed=3)
    np.testing.assert_array_equal(seen, places)


def test_bisection_finds_the_noise(paper):
    asked = []

    def success(factor):
        asked.append(factor)
        return 1.0 - factor / 8.0

    factor, known = paper.ablation.bisect(success, 0.45, 8.0, 6)
    assert factor == pytest.approx(4.4, abs=0.125) and known[factor] == pytest.approx(0.45, abs=0.02)
    assert len(asked) == len(known) == 6


def test_the_hardest_stage_is_the_one_that_fails_most_often(paper, tmp_path, monkeypatch):
    monkeypatch.setattr(paper.full_rl, "EVALUATIONS", tmp_path)
    with pytest.raises(InvalidArgument, match="evaluate_threading_d2_base-0.csv"):
        paper.full_rl.hardest("Threading", "D2")
    # 2 of 4 grasps fail, and 1 of the 2 insertions that are tried: 1 of 3 would be 0.67.
    rows = [("11", "11"), ("11", "10"), ("10", "10"), ("10", "00"), ("10", "00")]
    lines = ["entered,finished", *(",".join(row) for row in rows)]
    (tmp_path / "evaluate_threading_d2_base-0.csv").write_text("\n".join(lines))
    assert paper.full_rl.hardest("Threading", "D2") == "insert"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (("Square", "insert"), ("NutAssembly", "insert_round_nut")),
        (("Coffee", "insert"), ("CoffeePreparation", "insert")),
        (("CoffeePreparation", "pod_grasp"), ("Threading", "grasp")),
    ],
)
def test_a_moved_skill_does_there_what_it_does_at_home(paper, source, target):
    transfer = paper.transfer
    seen = [transfer.base_roles(*place) for place in (source, target)]
    assert all(len(set(roles)) == len(roles) for roles in seen)
    home, away = (TASKS[task] for task, _ in (source, target))
    network = load_mlps(Bundle.open(home).path("base"))[0][source[1]]
    assert network.mean is not None and network.std is not None
    moved = transfer.moved(network, *seen)
    rng = np.random.default_rng(0)
    x = network.mean + 0.5 * network.std * rng.standard_normal((20, network.input_size)).astype(np.float32)
    missing = [role not in seen[1] for role in seen[0]]
    x[:, missing] = network.mean[missing]
    there = rng.standard_normal((20, len(seen[1]))).astype(np.float32)
    for i, role in enumerate(seen[1]):
        if role in seen[0]:
            there[:, i] = x[:, seen[0].index(role)]
    np.testing.assert_allclose(moved.batch(there), network.batch(x), atol=2e-5)
    assert moved.input_size == len(stage_features(ObservationLayout.of(away), away, away.stage_index(target[1])))


def test_roles_are_those_of_the_stage(paper):
    roles = paper.transfer.roles
    assert roles("Square", "insert")[:3] == roles("NutAssembly", "insert_round_nut")[:3]
    ours, theirs = (set(roles(*place, True)) for place in (("Square", "insert"), ("NutAssembly", "insert_round_nut")))
    assert {"held_pos_in_ref[0]", "reference_pos_in_ref[2]", "ref_pos_world[2]", "base_action[6]"} <= ours & theirs
    assert "other square_nut_pos_in_ref[0]" in theirs and "stage of Square[1]" in ours - theirs
    assert roles("Coffee", "insert")[-3] == "coffee_machine_lid_joint"
    assert roles("CoffeePreparation", "insert")[-7:-5] == ["coffee_machine_lid_joint", "drawer_slide_joint"]


def test_skills_are_tried_within_their_kind_first(paper):
    pairs = paper.transfer.pairs(("pod_insert", "grasps"))
    assert len(pairs) == len(set(pairs)) == 4 + 81
    assert all(stage == "insert" for place in pairs[:4] for _, stage in place)


def test_a_moved_folder_is_a_whole_one(paper, tmp_path):
    starts = tmp_path / "pool.npz"
    starts.write_bytes(b"starts")
    args = paper.transfer.Args()
    folder = paper.transfer.move(args, ("Threading", "grasp"), ("Square", "grasp"), tmp_path / "moved", starts)
    bundle = Bundle.open(TASKS["Square"], folder)
    bundle.check()
    assert [path.stem for path in bundle.residual_files()] == ["residual-grasp"]
    own, moved = (load_mlps(b.path("base"))[0] for b in (Bundle.open(TASKS["Square"]), bundle))
    np.testing.assert_array_equal(own["insert"].weights[0], moved["insert"].weights[0])
    assert own["grasp"].weights[1].shape != moved["grasp"].weights[1].shape or not np.array_equal(
        own["grasp"].weights[1], moved["grasp"].weights[1]
    )
    evaluate.make(evaluate.Args(env_id="ReinforceGen/D2-Square-Residual-v0", policy="tuned", weights=folder))
