"""Generation: cutting skills out of demonstrations, adapting them, and writing files that survive a kill."""

import dataclasses
import os
import signal
from typing import Any

import numpy as np
import pytest

from reinforcegen_envs.demos import generate as generation
from reinforcegen_envs.demos.generate import Adapter, Args, generate, make_adapter
from reinforcegen_envs.demos.hdf5 import DemoFileError, read_attrs, read_demos, write_demos
from reinforcegen_envs.demos.segments import cut, skill_bounds
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.poses import distance
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.tasks import ThreadingTask
from reinforcegen_envs.workers import WorkerError, Workers


def assert_same_demo(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "name":
            continue
        if isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y, err_msg=field.name)
        elif x is None:
            assert y is None
        else:
            assert sorted(x) == sorted(y), field.name
            for key in x:
                np.testing.assert_array_equal(x[key], y[key], err_msg=f"{field.name}/{key}")


def plain(demo, **changes):
    """A demonstration as MimicGen prepares it: without this package's annotations."""
    return dataclasses.replace(demo, datagen_info={}, obs={}, states=None, **changes)


# --- skill segments ---


def test_annotated_skills(source_demos):
    for demo in source_demos:
        grasp, insert = skill_bounds(demo, ThreadingTask)
        assert 0 < grasp[0] < grasp[1] <= insert[0] < insert[1] <= len(demo)
        for stage, (begin, end), segment in zip(
            ThreadingTask.stages, (grasp, insert), cut(demo, ThreadingTask), strict=True
        ):
            assert (demo.datagen_info["is_skill"][begin:end] == 1).all()
            assert 5 < len(segment) <= end - begin < stage.horizon
            assert segment.tool.shape == segment.actual.shape == (len(segment), 4, 4)
        signal = int(np.argmax(demo.subtask_term_signals["grasp"]))
        assert grasp[0] < signal <= insert[0]


def test_skills_are_found_without_annotations(source_demos):
    for demo in source_demos:
        annotated, found = skill_bounds(demo, ThreadingTask), skill_bounds(plain(demo), ThreadingTask)
        signal = int(np.argmax(demo.subtask_term_signals["grasp"]))
        assert found[0][0] < signal < found[0][1] <= found[1][0] < found[1][1] == len(demo)
        # A found skill starts no later than the fingers close, or the tip enters, in the annotated one.
        closes = annotated[0][0] + int(np.argmax(demo.gripper_action[annotated[0][0] :, 0] > 0))
        assert found[0][0] < closes and found[1][0] <= annotated[1][0] + 15


def test_tools_are_relative_to_what_the_stage_is_about(source_demos):
    """The last target of the insertion puts the needle's shaft into the ring, whoever holds it and how."""
    for demo in source_demos:
        grasp, insert = cut(demo, ThreadingTask)
        shaft = insert.tool[-1] @ np.array([0, -0.02, 0, 1.0])
        np.testing.assert_allclose(shaft[:3], [0, 0, 0.088], atol=0.006)
        closing = int(np.argmax(grasp.gripper > 0))
        np.testing.assert_allclose(grasp.actual[closing][:3, 3], [0, 0.06, 0], atol=0.012)  # the handle


def test_unusable_demonstrations_are_refused(source_demos):
    demo = source_demos[0]
    never = {"grasp": np.zeros(len(demo), np.int64)}
    for signals in ({}, never):
        with pytest.raises(DemoFileError, match=r"demo_0.*'grasp' is missing or never rises"):
            cut(plain(demo, subtask_term_signals=signals), ThreadingTask)
    unmarked = {"stage": np.zeros(len(demo), np.int64), "is_skill": np.ones(len(demo), np.int64)}
    with pytest.raises(DemoFileError, match="demo_0.*no step.*'insert'"):
        cut(dataclasses.replace(demo, datagen_info=unmarked), ThreadingTask)


# --- the adapter ---


@pytest.fixture(scope="module")
def adapters():
    return {variant: make_adapter(Args(variant=variant)) for variant in ("D0", "D2")}


@pytest.mark.parametrize("variant, least", [("D0", 6), ("D2", 6)])
def test_most_attempts_succeed(adapters, variant, least):
    outcomes = [adapters[variant].attempt((0, i)) for i in range(10)]
    for outcome, demo in outcomes:
        assert (outcome == "success") == (demo is not None)
        if demo is None:
            continue
        actions, stage = demo.actions, demo.datagen_info["stage"]
        assert actions.shape == (len(demo), 7) and np.abs(actions).max() <= 1
        assert set(stage) == {0, 1} and (np.diff(stage) >= 0).all()
        assert demo.obs["state"].shape == (len(demo), 46)
        label = demo.datagen_info["label_action"]
        assert 0.01 < np.abs(actions[:, :6] - label[:, :6]).mean() < 0.1  # noise
        np.testing.assert_array_equal(actions[:, 6], label[:, 6])
    assert sum(outcome == "success" for outcome, _ in outcomes) >= least, [outcome for outcome, _ in outcomes]


def test_rows_are_transitions_of_the_hybrid_mode(adapters):
    """Observations, rewards and ends as the id that the file names has them; states and reset seed find the scene again."""
    hybrid = make_env("Threading", "D2", "Hybrid", termination="sustained")
    demo = next(demo for _, demo in (adapters["D2"].attempt((1, i)) for i in range(10)) if demo is not None)
    assert demo.rewards is not None and demo.dones is not None and demo.states is not None
    obs, following, stage = demo.obs["state"], demo.next_obs["state"], demo.datagen_info["stage"]
    assert obs.shape == following.shape == (len(demo), *hybrid.observation_space.shape)  # type: ignore[misc]
    np.testing.assert_array_equal(following[:-1], obs[1:])
    assert not np.array_equal(following[-1], obs[-1])
    assert demo.rewards.sum() == 1.0 and demo.rewards[-1] == 0.5 and (demo.rewards > 0).sum() == 2
    assert stage[np.flatnonzero(demo.rewards)].tolist() == [0, 1]
    assert demo.dones.tolist() == [0] * (len(demo) - 1) + [1]

    hybrid.reset(seed=demo.attrs["reset_seed"])
    core: Any = hybrid.unwrapped
    for name, poses in demo.object_poses.items():
        np.testing.assert_allclose(core.task.object_pose(core.sim, name), poses[0], atol=1e-4)
    # The rows of a skill follow from its first state and the actions, though the controller's memory is not in the file.
    steps = np.flatnonzero(stage == 0)
    for t in steps[:5]:
        core.data.time, core.data.qpos[:] = demo.states[t, 0], demo.states[t, 1 : 1 + core.model.nq]
        core.data.qvel[:] = demo.states[t, 1 + core.model.nq :]
        core.refresh()
        np.testing.assert_allclose(core.observe()[:9], obs[t][:9], atol=1e-5)


def test_attempts_depend_on_their_seed_alone(adapters):
    """Not on what the adapter did before: that is what makes the result independent of the workers."""
    fresh = make_adapter(Args(variant="D2"))
    compared = 0
    for seed in ((0, 4), (0, 2)):
        (outcome, demo), (again, same) = fresh.attempt(seed), adapters["D2"].attempt(seed)
        assert outcome == again
        if demo is not None and same is not None:
            assert demo.attrs["seed"] == list(seed)
            assert_same_demo(demo, same)
            compared += 1
    assert compared


@pytest.mark.parametrize("name, in_vain", [("grasp", 1), ("insert", 2), ("insert", generation.TRIES)])
def test_a_skill_that_gets_nowhere_is_begun_again_with_another_source(name, in_vain, monkeypatch):
    adapter = make_adapter(Args(variant="D2"))
    seed = next((0, i) for i in range(10) if adapter.attempt((0, i))[0] == "success")
    skill, wanted, segments, rows = adapter._skill, [stage.name for stage in ThreadingTask.stages].index(name), [], []

    def resting(index, segment, rng, record):
        if index == wanted:
            segments.append(segment)
            if len(segments) <= in_vain:  # some steps, and no more
                begun = dataclasses.replace(segment, **{k: v[:8] for k, v in vars(segment).items()})
                skill(index, begun, rng, record)
                rows.append(len(record))
                return False
        return skill(index, segment, rng, record)

    monkeypatch.setattr(adapter, "_skill", resting)
    outcome, demo = adapter.attempt(seed)
    if in_vain == generation.TRIES:
        assert outcome == f"{name}: skill" and demo is None and len(segments) == in_vain
        return
    assert outcome == "success" and demo is not None and demo.rewards is not None
    assert len(segments) == in_vain + 1
    if name == "grasp":  # whose grasp is there already, has one source alone for its insertion here
        assert len({id(segment) for segment in segments}) == len(segments)
    assert (np.diff(demo.datagen_info["stage"]) >= 0).all() and demo.rewards.sum() == 1.0
    # What was done in vain is left out: the skill's rows begin where the hand had come again.
    first = int(np.flatnonzero(demo.datagen_info["stage"] == wanted)[0])
    source = adapter._sources[demo.attrs["sources"][wanted]][wanted]
    assert any(source is segment for segment in segments[in_vain:]) and first < rows[0]


def test_start_noise_moves_the_start(source_demos):
    sources = [cut(demo, ThreadingTask) for demo in source_demos]
    poses = []
    for noise in ((0.0, 0.0), (0.01, 0.05)):
        adapter = Adapter(ManipulationEnv("Threading", "D0"), sources, start_noise=noise)
        starts = (demo.eef_pose[0] for _, demo in map(adapter.attempt, [(3, i) for i in range(4)]) if demo)
        poses.append(next(starts).astype(float))
    metres, radians = distance(*poses)
    assert metres > 0.002 and radians > 0.01


def test_sources_without_annotations_work(source_demos, tmp_path):
    """As MimicGen prepares them: signals only."""
    path = tmp_path / "plain.hdf5"
    write_demos(path, [plain(demo, name="") for demo in source_demos], {"env_name": "Threading_D0"})
    adapter = make_adapter(Args(variant="D0", source=path))
    outcomes = [adapter.attempt((0, i))[0] for i in range(8)]
    assert outcomes.count("success") >= 2, outcomes


# --- files ---


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Arguments of a short run, with chunks of 3 attempts."""
    monkeypatch.setattr(generation, "CHUNK", 3)
    return Args(variant="D0", count=4, out=tmp_path / "out.hdf5", workers=1, quiet=True)


def demos_of(args, **changes):
    args = dataclasses.replace(args, **changes)
    result = generate(args)
    assert not args.out.with_name(args.out.name + ".parts").exists()
    demos = read_demos(args.out, "Threading")
    assert len(demos) == args.count == result["successes"]
    assert sum(result["outcomes"].values()) == result["attempts"]
    return demos


class Killed(BaseException):
    """Stands for SIGKILL."""


def kill_after(monkeypatch, chunks):
    """Make the run die when it would save one more than so many chunks."""
    save = generation._save_chunk
    saved = []

    def save_or_die(path, results):
        if len(saved) == chunks:
            raise Killed
        saved.append(path)
        save(path, results)

    monkeypatch.setattr(generation, "_save_chunk", save_or_die)
    return saved


def test_two_workers_and_an_interrupted_run_make_the_same_file(small, tmp_path, monkeypatch):
    straight = demos_of(small)
    assert read_attrs(small.out)["env_args"]["env_name"] == "ReinforceGen/D0-Threading-Hybrid-v0"
    parallel = demos_of(small, workers=2, out=tmp_path / "parallel.hdf5")

    out = tmp_path / "killed.hdf5"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        saved = kill_after(patch, 1)
        generate(dataclasses.replace(small, out=out))
    assert not out.exists() and saved[0].is_file()
    assert sorted(path.name for path in saved[0].parent.iterdir()) == ["000000.npz", "settings.json"]
    assert [path.name for path in tmp_path.glob(".*")] == []  # no temporary files
    saved = kill_after(monkeypatch, 100)  # only takes note
    resumed = demos_of(small, out=out)
    assert saved[0].name == "000001.npz"  # the first chunk is not made again

    for demos in (parallel, resumed):
        for a, b in zip(straight, demos, strict=True):
            assert_same_demo(a, b)


def test_a_killed_worker_ends_the_run_and_the_same_command_takes_it_up(small, tmp_path, monkeypatch):
    straight = demos_of(small)
    out = tmp_path / "killed.hdf5"
    started = []
    spawn = Workers._spawn

    def spawn_and_note(self):
        spawn(self)
        started[:] = self._processes.values()

    save = generation._save_chunk

    def save_and_kill(path, results):
        save(path, results)
        os.kill(started[0].pid, signal.SIGKILL)

    with monkeypatch.context() as patch, pytest.raises(WorkerError, match="was ended by SIGKILL"):
        patch.setattr(Workers, "_spawn", spawn_and_note)
        patch.setattr(generation, "_save_chunk", save_and_kill)
        generate(dataclasses.replace(small, count=40, out=out, workers=2))
    assert not out.exists() and not any(process.is_alive() for process in started)
    assert (out.with_name("killed.hdf5.parts") / "000000.npz").is_file()
    assert list(tmp_path.glob(".*")) == []
    for a, b in zip(straight, demos_of(small, out=out), strict=True):
        assert_same_demo(a, b)


def test_other_settings_are_refused_while_a_run_is_unfinished(small, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 0)
        generate(small)
    with pytest.raises(RuntimeError, match=r"out\.hdf5\.parts holds an unfinished run with other settings.*delete"):
        generate(dataclasses.replace(small, seed=1))
    assert not small.out.exists()


def test_too_few_successes_write_nothing_and_can_be_taken_up(small, tmp_path):
    """A run that is given more attempts later makes the same file as one that had them at once."""
    with pytest.raises(RuntimeError, match=r"of 4 demonstrations in 2 attempts.*--max-attempts"):
        generate(dataclasses.replace(small, max_attempts=2))
    assert [path.name for path in tmp_path.iterdir()] == ["out.hdf5.parts"]
    for a, b in zip(demos_of(small), demos_of(small, out=tmp_path / "straight.hdf5"), strict=True):
        assert_same_demo(a, b)


def test_an_old_file_stays_until_the_new_one_is_complete(small):
    small.out.write_bytes(b"precious")
    with pytest.raises(RuntimeError):
        generate(dataclasses.replace(small, max_attempts=1))
    assert small.out.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"task": "Knitting"}, ValueError, "unknown task 'Knitting'.*Threading"),
        ({"variant": "D9"}, ValueError, "unknown variant 'D9'.*D0"),
        ({"count": 0}, ValueError, "count is 0.*at least 1"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(small, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        generate(dataclasses.replace(small, **changes))
    assert list(tmp_path.iterdir()) == []


def test_unusable_sources_leave_nothing_behind(small, tmp_path):
    source = tmp_path / "source.hdf5"
    whole = source_file("Threading").read_bytes()
    for content in (b"", b"not HDF5", whole[: len(whole) // 2]):
        source.write_bytes(content)
        with pytest.raises(DemoFileError, match="source.hdf5"):
            generate(dataclasses.replace(small, source=source))
    with pytest.raises(DemoFileError, match="no demonstration file"):
        generate(dataclasses.replace(small, source=tmp_path / "missing.hdf5"))
    assert list(tmp_path.iterdir()) == [source]
