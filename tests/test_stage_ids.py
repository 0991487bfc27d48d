"""Ids for a stage, and the start pools that they make on first use: found again, made anew when they must be, made once."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from helpers import registrations_undone
from test_vector import assert_same

from reinforcegen_envs.agents.arguments import RunArgs
from reinforcegen_envs.agents.arguments import checked as checked_run
from reinforcegen_envs.caching import CacheError
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import command
from reinforcegen_envs.ids import STAGE_MODES, env_id, parse_env_id, parse_stage, stage_word
from reinforcegen_envs.perception import PoseErrors
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import register_task
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.tasks.contract import TaskError
from reinforcegen_envs.wrappers import StartPool, stored_pool

GRASP = "ReinforceGen/D0-Threading-Residual-Grasp-v0"
INSERT = "ReinforceGen/D2-Threading-Residual-Insert-v0"
STAGE_IDS = [
    env_id(task.name, variant, mode, stage.name)
    for task in TASKS.values()
    for variant in task.variants
    for mode in STAGE_MODES
    for stage in task.stages
]


@pytest.fixture(autouse=True)
def pools(tmp_path, monkeypatch):
    """The folder of stored pools, empty; scenes stay where they are."""
    monkeypatch.setattr(stored_pool, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "pools"


def files(folder):
    return sorted(path.name for path in folder.glob("*.npz"))


# --- ids ---


def test_every_stage_has_its_ids():
    assert stage_word("grasp_square_nut") == "GraspSquareNut" and stage_word("insert") == "Insert"
    assert "ReinforceGen/D1-NutAssembly-Skill-GraspSquareNut-v0" in STAGE_IDS and INSERT in STAGE_IDS
    assert all(name in gym.registry for name in STAGE_IDS)
    for name in STAGE_IDS:
        spec = gym.spec(name)
        task, variant, mode = parse_env_id(name)
        assert (task, variant, mode) == tuple(spec.kwargs[part] for part in ("task", "variant", "mode"))
        assert parse_stage(f"reinforcegen_envs:{name}") == stage_word(spec.kwargs["stage"])
        assert spec.max_episode_steps == TASKS[task].horizon and spec.kwargs["pool"] == "auto"
        assert EnvSpec.from_json(spec.to_json()) == spec
    assert parse_stage("ReinforceGen/D2-Threading-Skill-v0") is None


@pytest.mark.parametrize("name", ["D2-Threading-Hybrid-Insert", "D2-Threading-Insert", "D2-Threading-Skill-Insert-Now"])
def test_what_is_no_id_of_a_stage_is_refused(name):
    with pytest.raises(InvalidArgument, match="'ReinforceGen/VARIANT-TASK-MODE-STAGE-v0' with Skill or Residual"):
        parse_stage(f"ReinforceGen/{name}-v0")


def test_stages_that_ids_cannot_tell_apart_are_refused():
    grasp, insert = TASKS["Threading"].stages
    for stages in ([("go", grasp), ("Go", insert)], [("1st", grasp), ("then", insert)]):
        renamed = tuple(type(stage)(**{**vars(stage), "name": name}) for name, stage in stages)
        with registrations_undone(), pytest.raises(TaskError, match="in ids .* must differ, and be letters and digits"):
            register_task(type("OwnTask", (TASKS["Threading"],), {"name": "Own", "stages": renamed}))


@pytest.mark.parametrize("name", [GRASP, "ReinforceGen/D0-Threading-Skill-Insert-v0"])
def test_check_env_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        env = gym.make(name, pool_size=2)
        check_env(env, skip_render_check=True)
    env.close()


def test_it_is_its_mode_s_id_with_a_stage_and_the_pool(pools):
    """The same episodes; and the pool is the one that the command makes."""
    by_stage = gym.make(INSERT, pool_size=3)
    (name,) = files(pools)
    assert name.startswith("threading-d2-insert-")
    by_mode = gym.make(INSERT.replace("-Insert", ""), stage="insert", pool=str(pools / name))
    assert_same(by_stage.reset(seed=1), by_mode.reset(seed=1))
    for _ in range(5):
        action = by_stage.action_space.sample()
        assert_same(by_stage.step(action), by_mode.step(action))
    alone = gym.make(INSERT, pool=None)
    pool = StartPool.load(pools / name)
    for seed in range(2):
        alone.reset(seed=seed)
        state = alone.unwrapped.get_state().simulation  # type: ignore[attr-defined]
        assert_same(pool[seed].simulation, state)


# --- stored pools ---


def test_a_pool_is_made_once_with_a_progress_bar(pools, capfd):
    first = gym.make(GRASP, pool_size=2)
    told = capfd.readouterr().err
    assert "making 2 starts of Threading-D0-grasp, this once" in told and "2/2" in told
    made = {path: path.stat().st_mtime_ns for path in pools.glob("*.npz")}
    envs = gym.make_vec(GRASP, 2, pool_size=2)
    np.testing.assert_array_equal(envs.reset(seed=3)[0][0], first.reset(seed=3)[0])
    assert capfd.readouterr().err == "" and len(made) == 1
    assert {path: path.stat().st_mtime_ns for path in pools.glob("*.npz")} == made
    envs.close()


def test_starts_do_not_depend_on_threads(monkeypatch, pools):
    contents = []
    for cores in (1, 3):
        monkeypatch.setattr("reinforcegen_envs.wrappers.skill.usable_cores", lambda cores=cores: cores)
        gym.make(INSERT, pool_size=4)
        (path,) = pools.glob("*.npz")
        with np.load(path) as file:
            contents.append({name: file[name] for name in file.files})
        path.unlink()
    assert contents[0].keys() == contents[1].keys()
    for name, array in contents[0].items():
        assert array.tobytes() == contents[1][name].tobytes(), name


def test_whatever_matters_makes_another_pool(pools, weights, tmp_path, monkeypatch):
    calls = []

    def make(settings, *_):
        calls.append(settings)
        raise RuntimeError("made")

    monkeypatch.setattr(stored_pool, "_make", make)
    keys = set()

    def key(name=GRASP, **kwargs):
        monkeypatch.setattr(stored_pool, "_usable", lambda path: keys.add(path.name) or False)
        before = len(keys)
        with pytest.raises(RuntimeError, match="made"):
            gym.make(name, **kwargs)
        return len(keys) - before

    assert key() == 1 and key() == 0
    different: list[dict[str, Any]] = [
        {"pool_size": 3},
        {"pose_noise": (0.01, 0.02)},
        {"initiation": "student"},
        {"replan": True},
        {"controller": "osc_pose_v1_4"},
        {"perception": PoseErrors(metres=0.001)},
        {"perception": PoseErrors(metres=0.002)},
    ]
    for kwargs in different:
        assert key(**kwargs) == 1, kwargs
        assert key(**kwargs) == 0, kwargs
    assert key("ReinforceGen/D1-Threading-Residual-Grasp-v0") == 1
    assert key("ReinforceGen/D0-Threading-Residual-Insert-v0") == 1
    # What a start does not depend on makes none: the mode, how skills end, where the same weights lie.
    assert key("ReinforceGen/D0-Threading-Skill-Grasp-v0", termination="predictor", obs_mode="state_dict") == 0
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder)
    assert key(weights=str(folder)) == 0
    skeleton = Bundle.open(TASKS["Threading"], folder).skeleton()
    skeleton.tools[0, 0, 0, 0, 3] += 0.001
    Bundle.open(TASKS["Threading"], folder).save_skeleton(skeleton)
    assert key(weights=str(folder)) == 1
    for name, other in (("_version", "another"), ("_code", "edited"), ("has_pybullet", not stored_pool.has_pybullet())):
        monkeypatch.setattr(stored_pool, name, lambda other=other: other)
        assert key() == 1, name


def test_a_damaged_pool_is_made_again(pools):
    gym.make(GRASP, pool_size=2)
    (path,) = pools.glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    gym.make(GRASP, pool_size=2)
    assert len(StartPool.load(path)) == 2


def test_a_cache_that_cannot_be_written_is_one_message(pools):
    pools.parent.mkdir()
    pools.write_text("a file where the folder should be")
    with pytest.raises(
        CacheError, match="start pool of Threading-D0-grasp cannot be kept: .*REINFORCEGEN_CACHE"
    ) as info:
        gym.make(GRASP, pool_size=2)
    assert "\n" not in str(info.value) and "pool=None" in str(info.value)
    gym.make(GRASP, pool=None)


def test_a_pool_that_is_there_needs_no_cache_that_can_be_written(pools, monkeypatch):
    gym.make(GRASP, pool_size=2)

    def refuse(*_, **__):
        raise AssertionError("a file was opened for writing")

    monkeypatch.setattr(stored_pool, "_locked", refuse)
    gym.make(GRASP, pool_size=2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pool_size": 0}, "pool_size 0 must be a number of starts, at least 1"),
        ({"pool_size": 2.5}, "pool_size 2.5 must be a number of starts"),
        ({"pool": None, "pool_size": 2}, "pool_size 2 is of pool='auto', and pool is None"),
        (
            {"earlier_policy": lambda obs: np.zeros(7)},
            "pool='auto' is made by the base policy, and earlier_policy is given",
        ),
        ({"earlier_pool": "grasp.npz"}, "earlier_pool such that lead to it; give one of them"),
        ({"stage": None}, r"\['pool'\] belong to one stage's skill"),
    ],
)
def test_what_does_not_go_together_is_one_message(kwargs, message):
    with pytest.raises(InvalidArgument, match=message):
        gym.make(INSERT, **kwargs)


RACER = """
import sys
from pathlib import Path
from reinforcegen_envs.wrappers import stored_pool
stored_pool.cache_folder = lambda: Path(sys.argv[1])
import gymnasium as gym
env = gym.make("ReinforceGen/D0-Threading-Residual-Insert-v0", pool_size=3)
print(env.reset(seed=0)[0].tobytes().hex())
"""


def test_processes_that_race_make_one_pool(tmp_path):
    """The one that comes first makes it, even if it is killed in the middle; a script needs no guard."""
    script = tmp_path / "racer.py"
    script.write_text(RACER)
    start = [sys.executable, str(script), str(tmp_path / "raced")]
    killed = subprocess.Popen(start, stderr=subprocess.PIPE)
    assert killed.stderr is not None
    while b"making" not in killed.stderr.readline():
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    racers = [subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [racer.communicate() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], results
    assert results[0][0] == results[1][0] != ""
    assert sum("making 3 starts" in told for _, told in results) == 1
    assert [path.suffix for path in sorted((tmp_path / "raced" / "pools").iterdir())] == [".lock", ".npz"]


def _in_a_process(folder, queue):
    stored_pool.cache_folder = lambda: Path(folder)
    queue.put(gym.make(GRASP, pool_size=2).reset(seed=0)[0].shape)


def test_a_process_that_may_not_have_children_makes_one(tmp_path):
    """A worker of somebody's vector environment."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_a_process, args=(str(tmp_path), queue), daemon=True)
    process.start()
    process.join(50)
    assert process.exitcode == 0 and queue.get(timeout=1) == (53,)


# --- commands ---


def test_evaluation_plays_the_stage_in_scenes_of_its_own(pools, monkeypatch):
    env, _ = command.make(command.Args(env_id=INSERT, policy="base"))
    spec = env.spec
    assert spec is not None and spec.kwargs["stage"] == "insert" and spec.kwargs["pool"] is None and files(pools) == []
    with pytest.raises(InvalidArgument, match="is of stage 'insert', and stage names 'grasp'"):
        command.make(command.Args(env_id=INSERT, policy="base", stage="grasp"))


def test_trainers_know_the_stage():
    assert checked_run(RunArgs(env_id=INSERT)).stage == "insert"
    assert checked_run(RunArgs()).stage is None
    with pytest.raises(InvalidArgument, match="is of stage 'insert', and stage names 'grasp'"):
        checked_run(RunArgs(env_id=INSERT, stage="grasp"))


def test_they_are_listed(capsys):
    from reinforcegen_envs import inventory

    found = inventory.main(inventory.Args(task="Threading", json=True))
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    listed = [
        name for stages in found["Threading"]["stage_ids"].values() for names in stages.values() for name in names
    ]
    assert sorted(listed) == sorted(name for name in STAGE_IDS if "-Threading-" in name)
    inventory.main(inventory.Args(task="Threading"))
    assert "ReinforceGen/{D0,D1,D2}-Threading-Residual-{Grasp,Insert}-v0" in capsys.readouterr().out
