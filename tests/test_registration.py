"""Tasks from outside the package: registered, refused, found by commands and by other processes; and what ids promise."""

import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from helpers import registrations_undone

from reinforcegen_envs import register_task, registration
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.ids import env_id, parse_env_id
from reinforcegen_envs.registration import MODES, STAGE_MODES, VARIANTS, load_task_module, make_env, task_modules
from reinforcegen_envs.tasks import PACKAGE_TASKS, TASKS, Placement, Shape, Stage, Task, ThreadingTask
from reinforcegen_envs.tasks.contract import TaskError

OWN_TASK = Path(__file__).parents[1] / "examples" / "own_task.py"
STACK = "ReinforceGen/D0-Stack-v0"


@pytest.fixture
def undone():
    """Registrations of the test alone."""
    with registrations_undone():
        yield


@pytest.fixture
def own_task(undone):
    return load_task_module(OWN_TASK)


# --- what ids promise ---


def test_ids_are_parsed_as_they_are_written():
    for task in TASKS:
        for variant in VARIANTS:
            for mode in MODES:
                name = env_id(task, variant, mode)
                assert parse_env_id(name) == parse_env_id(f"reinforcegen_envs:{name}") == (task, variant, mode)


@pytest.mark.parametrize(
    "name",
    ["Pendulum-v1", "ReinforceGen/Threading-v0", "ReinforceGen/D0-Threading-Hybrd-v0", "Own/D0-Threading-v0", ""],
)
def test_what_is_not_an_id_is_refused(name):
    with pytest.raises(InvalidArgument, match=r"not an id of ReinforceGen; one reads 'ReinforceGen/VARIANT-TASK-v0'"):
        parse_env_id(name)


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_argument_is_the_type_error_that_libraries_probe_for(mode):
    with pytest.raises(
        TypeError, match="got an unexpected keyword argument 'frameskip'; it takes .*'obs_mode'"
    ) as info:
        gym.make(env_id("Threading", "D2", mode), frameskip=1)
    assert isinstance(info.value, ReinforceGenError)


@pytest.mark.parametrize("mode", MODES)
def test_the_horizon_is_published(mode):
    for task in PACKAGE_TASKS:
        for variant in VARIANTS:
            assert gym.spec(env_id(task.name, variant, mode)).max_episode_steps == task.horizon
    env = gym.wrappers.TimeAwareObservation(gym.make(env_id("Threading", "D2", mode)))
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    env.close()


@pytest.mark.parametrize(("mode", "action"), [("Hybrid", 0.0), ("Residual", 1.0), ("Skill", 0.0)])
def test_no_time_limit_cuts_a_mode_s_episode_short(mode, action):
    """Episodes that idle to their end are the same with Gymnasium's TimeLimit and without."""

    def played(env):
        observation, _ = env.reset(seed=3)
        steps = [observation]
        while True:
            observation, reward, terminated, truncated, info = env.step(np.full(7, action))
            steps.append(np.append(observation, [reward, terminated, truncated]))
            if terminated or truncated:
                return np.concatenate(steps), info["failure"]

    limited, bare = played(gym.make(env_id("Threading", "D2", mode))), played(make_env("Threading", "D2", mode))
    np.testing.assert_array_equal(limited[0], bare[0])
    assert limited[1] == bare[1]


# --- a task of one's own ---


def test_a_module_s_path_brings_its_ids(own_task):
    task = own_task.StackTask
    assert TASKS["Stack"] is task and task_modules() == (str(OWN_TASK.resolve()),)
    names = [name for name in gym.registry if "-Stack" in name]
    stages = [(mode, stage.name) for mode in STAGE_MODES for stage in task.stages]
    expected = [(mode, None) for mode in MODES] + stages
    assert sorted(names) == sorted(env_id("Stack", variant, *each) for variant in ("D0", "D1") for each in expected)
    assert gym.spec(STACK).max_episode_steps == 400
    env = gym.make(STACK)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation) and info["stage_name"] == "grasp"
    assert load_task_module(OWN_TASK) is own_task  # once
    assert register_task(task) is task  # again


def test_it_has_no_weights_until_some_are_named(own_task):
    with pytest.raises(ReinforceGenError, match="no weights are shipped for Stack"):
        gym.make(env_id("Stack", "D0", "Hybrid"))


def test_a_module_is_found_by_name_in_the_working_directory(undone, monkeypatch):
    monkeypatch.chdir(OWN_TASK.parent)
    assert load_task_module("own_task").StackTask is TASKS["Stack"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no_such_task", r"no module 'no_such_task', and no file no_such_task.py in .*register_task"),
        ("no.such.task", r"no module 'no.such.task'"),
        ("no_such_task.py", r"no file no_such_task.py; .*register_task"),
    ],
)
def test_a_module_that_is_not_there_is_one_message(module, message):
    with pytest.raises(InvalidArgument, match=message):
        load_task_module(module)


def test_a_file_named_as_another_module_must_be_renamed(undone, tmp_path):
    (tmp_path / "json.py").write_text("")
    with pytest.raises(InvalidArgument, match=r"there is a module 'json' already; rename the file"):
        load_task_module(tmp_path / "json.py")
    assert sys.modules["json"] is json


def test_a_module_s_own_mistakes_keep_their_traceback(undone, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mistaken_task.py").write_text("import nonexistent_dependency\n")
    for module in ("mistaken_task", tmp_path / "mistaken_task.py"):
        with pytest.raises(ModuleNotFoundError, match="nonexistent_dependency"):
            load_task_module(module)


def run_python(code, *arguments, **environment):
    """Standard output of ``python -c code arguments`` in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=os.environ | environment
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("importable", [True, False])
def test_a_spec_makes_the_task_in_another_process(own_task, importable, tmp_path):
    spec = gym.spec(STACK)
    assert EnvSpec.from_json(spec.to_json()) == spec
    if importable:  # as an installed module would be
        code = "import gymnasium as gym, own_task; print(gym.spec(sys.argv[1]).to_json())"
        text = run_python(f"import sys; {code}", STACK, PYTHONPATH=path_with(OWN_TASK.parent))
        assert json.loads(text)["kwargs"]["task_module"] == "own_task"
    else:
        text = spec.to_json()
        assert json.loads(text)["kwargs"]["task_module"] == str(OWN_TASK.resolve())
    code = """
import sys
import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
env = gym.make(EnvSpec.from_json(sys.argv[1]))
print(env.reset(seed=5)[0].tolist())
"""
    again = run_python(code, text, PYTHONPATH=path_with(OWN_TASK.parent) if importable else path_with())
    np.testing.assert_array_equal(json.loads(again), gym.make(STACK).reset(seed=5)[0].tolist())


def path_with(*folders):
    """A PYTHONPATH of this process's, without the examples, and some more folders."""
    before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join([*map(str, folders), *(p for p in before if Path(p).resolve() != OWN_TASK.parent.resolve())])


def test_asynchronous_vector_environments_make_it_in_spawned_processes(own_task):
    env = gym.make_vec(STACK, num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"})
    observations, _ = env.reset(seed=[5, 6])  # type: ignore[arg-type] (vector environments take one a sub-environment)
    observations_after, *_ = env.step(np.zeros((2, 7)))
    env.close()
    single = gym.make(STACK)
    for i, seed in enumerate((5, 6)):
        np.testing.assert_array_equal(observations[i], single.reset(seed=seed)[0])
        np.testing.assert_array_equal(observations_after[i], single.step(np.zeros(7))[0])


def test_a_script_s_own_task_is_known_to_its_processes(tmp_path):
    """A task that is defined in ``__main__``, where spawned processes find it under another name."""
    script = tmp_path / "script.py"
    script.write_text(
        OWN_TASK.read_text()
        + f"""

if __name__ == "__main__":
    import gymnasium as gym

    print(gym.spec({STACK!r}).kwargs["task_module"])
    env = gym.make_vec({STACK!r}, num_envs=2, vectorization_mode="async", vector_kwargs=dict(context="spawn"))
    print(env.reset(seed=0)[0].shape[0])
    env.close()
"""
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(script), "2"]


# --- entry points ---


class EntryPoint:
    name = "mine"

    def __init__(self, module):
        self.module = self.value = module


def test_installed_modules_register_themselves(undone, monkeypatch):
    asked = []
    entries = lambda group: asked.append(group) or [EntryPoint("own_task")]  # noqa: E731
    monkeypatch.setattr(importlib.metadata, "entry_points", entries)
    monkeypatch.syspath_prepend(OWN_TASK.parent)
    registration.load_entry_points()
    assert asked == ["reinforcegen_envs.tasks"] and "Stack" in TASKS
    assert task_modules() == ("own_task",)


def test_an_entry_point_that_fails_is_left_out_with_a_warning(undone, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [EntryPoint("no_such_task")])
    with pytest.warns(UserWarning, match=r"tasks of entry point 'mine' \(no_such_task\) are missing: ModuleNotFound"):
        registration.load_entry_points()


# --- malformed tasks ---


def changed(**attributes):
    return type("OwnTask", (ThreadingTask,), {"name": "Own", **attributes})


GRASP, INSERT = ThreadingTask.stages
PLACES = ThreadingTask.variants["D0"]
ABSTRACT = type("Abstract", (Task,), {**vars(ThreadingTask), "predicates": Task.predicates})
BACKWARDS = Placement((0.1, -0.1), (0.0, 0.0), (0.0, 0.0))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (3, r"3 is no task; register a subclass of"),
        (dict, r"is no task; register a subclass of"),
        (type("Bare", (Task,), {}), r"class Bare lacks the class attributes \['name', 'scene', .*'horizon'\]"),
        (ABSTRACT, r"lacks the methods \['predicates'\]"),
        (changed(name="Own-Task"), r"name 'Own-Task' must be letters and digits"),
        (changed(name="Hybrid"), r"name 'Hybrid' must be .*no mode's name"),
        (changed(horizon=0), r"horizon 0 must be a number of control steps"),
        (changed(horizon=None), r"horizon None must be a number of control steps"),
        (changed(success_steps=0), r"success_steps 0 must be"),
        (changed(scene="threading"), r"scene 'threading' must be a .*Scene"),
        (changed(objects=("needle", "needle")), r"objects .* different names of the scene's bodies \['needle', 'tripod'\]"),
        (changed(objects=("needle", "thread")), r"objects names \['thread'\]; choose from \['needle', 'tripod'\]"),
        (changed(joints={"lid": 0.0}), r"joints names \['lid'\]; choose from \[\]"),
        (changed(shapes={"needle": Shape(0.02, 0.08)}), r"shapes\['tripod'\] must be a Shape"),
        (changed(variants={}), r"variants is empty"),
        (changed(variants={"D-0": PLACES}), r"variant 'D-0' must be letters and digits"),
        (changed(variants={"D0": {"needle": BACKWARDS}}), r"'D0' places \['needle'\]; it must place \['needle', 'tripod'\]"),
        (changed(variants={"D0": {**PLACES, "needle": BACKWARDS}}), r"has Placement\(.*\) for 'needle'; .*\(low, high\)"),
        (changed(variants={"D0": {**PLACES, "needle": None}}), r"has None for 'needle'; it must be a Placement"),
        (changed(stages=()), r"stages is empty"),
        (changed(stages=("grasp",)), r"stages holds 'grasp'; every one must be a Stage"),
        (changed(stages=(Stage("grasp", "needle", None, 0, None, 0.09, 16),)), r"stage 'grasp' has horizon 0"),
        (changed(stages=(Stage("grasp", "pin", None, 100, None, 0.09, 16),)), r"stage 'grasp' names \['pin'\]; choose from"),
        (changed(stages=(Stage("grasp", "needle", "pin", 100, None, 0.09, 16),)), r"stage 'grasp' names \['pin'\]; choose from"),
        (changed(stages=(GRASP, GRASP, INSERT)), r"stages are called \['grasp', 'grasp', 'insert'\]; names must differ"),
        (changed(stages=(INSERT, GRASP)), r"signals \[None, 'grasp'\]; all but the last stage need one"),
        (changed(horizon=219), r"horizons sum to 220 control steps; horizon 219 must be at least that"),
        (changed(name="Threading"), r"there is a task 'Threading' already, .*ThreadingTask; choose another name"),
        (changed(name="threading"), r"there is a task 'Threading' already"),
    ],
)  # fmt: skip
def test_a_malformed_task_is_one_message_and_changes_nothing(task, message, undone):
    ids, tasks = set(gym.registry), dict(TASKS)
    with warnings.catch_warnings(), pytest.raises(TaskError, match=message) as info:
        warnings.simplefilter("error")
        register_task(task)
    assert isinstance(info.value, InvalidArgument) and "\n" not in str(info.value)
    assert set(gym.registry) == ids and tasks == TASKS


def test_a_task_without_a_recipe_says_so(undone):
    from reinforcegen_envs.demos.collect import Args, collect

    register_task(changed(recipe=vars(Task)["recipe"]))
    with pytest.raises(
        InvalidArgument, match="Own has no recipe for the scripted teleoperator; give OwnTask a classmethod"
    ):
        collect(Args(task="Own", count=1, out=Path("nowhere.hdf5")))


def test_a_task_without_source_demonstrations_says_how_to_make_some(own_task):
    from reinforcegen_envs.demos.sources import source_file

    with pytest.raises(InvalidArgument, match=r"Stack comes without source demonstrations.*demos.collect --task Stack"):
        source_file("Stack")
