"""Submissions: the schema, what the command plays and writes, and when a result counts as reproduced."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from reinforcegen_envs import evaluate
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import Episode, submit
from reinforcegen_envs.evaluation.own_agent import submission_of
from reinforcegen_envs.evaluation.submission import Facts, Run, Submission, SubmissionError, read_all, run_of
from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.registration import env_id
from reinforcegen_envs.statistics import EVALUATION_SEED, wilson_interval

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "submissions"
FACTS = Facts("A method", "Somebody", "Threading", "D2", policy="base", weights="shipped")


def run(strict=290, reference=295, **kwargs):
    return Run(**{**dataclasses.asdict(Run(3, 100, EVALUATION_SEED, strict, reference, 180.0, 80.0)), **kwargs})


# --- the schema ---


def test_every_file_is_a_submission_under_its_own_name():
    found = read_all(FOLDER)
    assert len(found) >= 50
    for submission in found.values():
        if submission.reproduction is not None:
            assert submission.reproduction.commit and "dirty" not in submission.reproduction.commit


def test_what_is_written_is_read_again(tmp_path):
    for submission in (
        Submission(FACTS, run()),
        Submission(FACTS, stated=0.38),
        Submission(FACTS, run(), None, run(285, 290), "Somebody else"),
    ):
        path = tmp_path / f"{submission.name}.json"
        submission.write(path)
        assert Submission.read(path) == submission and read_all(tmp_path) == {path.name: submission}
    assert submission.name == "a-method-threading-d2-state"
    assert submission.entries()["interval"] == pytest.approx(wilson_interval(290, 300), abs=1e-6)
    (tmp_path / "other.json").write_text(submission.text())
    with pytest.raises(SubmissionError, match=r"other\.json must be called a-method-threading-d2-state\.json"):
        read_all(tmp_path)


def test_less_than_the_protocol_is_known():
    assert run().full and not run(seeds=1, strict_successes=9, reference_successes=9).full
    assert not run(first_seed=EVALUATION_SEED + 1).full


GOOD = Submission(FACTS, run(), None, run(285, 290), "Somebody else").entries()


def changed(**values):
    entries = copy.deepcopy(GOOD)
    for name, value in values.items():
        place = entries
        *path, last = name.split("__")
        for key in path:
            place = place[key]
        place[last] = value
    return entries


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "must be an object"),
        ({}, "format is None; it must be 1"),
        (changed(format=2), "format is 2"),
        (changed(method=" "), "method is empty"),
        (changed(authors=7), "authors is 7; it must be a text"),
        (changed(task="Knitting"), "task is 'Knitting'; choose one of"),
        (changed(variant="D9"), r"variant is 'D9'; choose one of \['D0', 'D1', 'D2'\]"),
        (changed(observation="smell"), r"observation is 'smell'; choose one of \['state', 'camera'\]"),
        (changed(link="javascript:alert(1)"), "link is 'javascript.*must begin with https://"),
        (changed(demonstrations=-1), "demonstrations is -1; it must be at least 0"),
        (changed(colour="red"), r"unknown entries \['colour'\]"),
        ({k: v for k, v in GOOD.items() if k != "task"}, r"entries \['task'\] are missing"),
        ({k: v for k, v in GOOD.items() if k != "run"}, "give either run, .*, or stated"),
        (changed(stated=0.5), "give either run"),
        ({**changed(stated="all"), "run": None}, "stated is 'all'"),
        ({**changed(stated=38.0), "run": None}, "stated is 38.0; it must be a rate"),
        (changed(status="reported"), "status is 'reported'; by the other entries it is 'reproduced'"),
        (changed(interval=[0.99, 1.0]), r"interval is \[0.99, 1.0\]; the counts give \[0.939"),
        (changed(interval=None), "interval is None"),
        (changed(interval="wide"), "interval is 'wide'"),
        (changed(run=3), "run: it must be an object"),
        (changed(run__seeds=0), "run: seeds is 0; it must be at least 1"),
        (changed(run__episodes=100), r"run: unknown entries \['episodes'\]"),
        (changed(run__strict_successes=296), "strict_successes 296, reference_successes 295 and episodes 300"),
        (changed(run__reference_successes=301), "must not fall"),
        (changed(run__connect_steps=200.0), "connect_steps 200.0 are more than control_steps 180.0"),
        (changed(run__first_seed=0), "first_seed is 0; evaluation seeds start at 1000000"),
        (changed(run__date="yesterday"), "date is 'yesterday'; write YYYY-MM-DD"),
        (changed(run__control_steps=float("nan")), "control_steps is nan"),
        (changed(reproduced_by=""), "reproduction and reproduced_by belong together"),
        (changed(reproduction__strict_successes=200), "run's rate within its interval"),
        (changed(reproduction__first_seed=EVALUATION_SEED + 300), "reproduction must be of run's episodes"),
    ],
)
def test_what_is_no_submission_is_named(entries, message, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(SubmissionError, match=message) as error:
        Submission.read(path)
    assert str(error.value).startswith(f"{path} is not a submission: ")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SubmissionError, match="nowhere.json cannot be read"):
        Submission.read(tmp_path / "nowhere.json")
    (tmp_path / "half.json").write_text('{"format": 1,')
    with pytest.raises(SubmissionError, match="half.json is not a submission"):
        Submission.read(tmp_path / "half.json")


def test_episodes_make_a_run():
    episodes = [Episode(EVALUATION_SEED + i, i < 3, i < 4, control_steps=100 + i, connect_steps=50) for i in range(6)]
    made = run_of(episodes, 2, "play it")
    assert made.plays == (2, 3, EVALUATION_SEED) and (made.strict_successes, made.reference_successes) == (3, 4)
    assert (made.control_steps, made.connect_steps, made.command) == (102.5, 50.0, "play it")
    assert (
        made.success == 0.5 and made.interval == wilson_interval(3, 6) and made.mujoco and made.package and made.python
    )
    for wrong, seeds in ((episodes, 4), ([], 1), (episodes[::-1], 2), (episodes[::2], 1), (episodes, 0)):
        with pytest.raises(SubmissionError, match="not as many of each"):
            run_of(wrong, seeds)


# --- the command ---


def arguments(tmp_path, **kwargs):
    values = {"method": "A method", "authors": "Somebody", "policy": "base", "episodes": 2, "seeds": 2, "workers": 1}
    return submit.Args(**{"quiet": True, "out": tmp_path / "file.json", **values, **kwargs})


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """Four episodes of Threading's shipped base policy."""
    path = tmp_path_factory.mktemp("submission") / "new" / "file.json"
    return submit.main(arguments(path.parent)), path


def test_a_submission_is_what_evaluate_counts(submitted):
    submission, path = submitted
    args = evaluate.Args(policy="base", episodes=2, seeds=2, workers=1, quiet=True)
    result = evaluate.evaluate(args)
    run = submission.run
    assert run.success == result["success"] and run.reference_success == result["reference_success"]
    assert run.control_steps == pytest.approx(result["control_steps"], abs=0.01) and not run.full
    assert run.connect_steps == pytest.approx(np.mean([e.connect_steps for e in result["each"]]), abs=0.01)
    assert run.command == (
        "python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy base "
        "--episodes 2 --seeds 2"
    )
    facts = submission.facts
    assert (facts.demonstrations, facts.training_steps, facts.weights) == (1500, 0, "shipped")
    assert submission.status == "reported" and Submission.read(path) == submission
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_retries_are_played_told_and_reproduced(tmp_path, monkeypatch):
    """Files of before there were any do not name them."""
    played = []

    def evaluated(settings):
        played.append(settings.retries)
        return {"each": [Episode(EVALUATION_SEED + i, True, True, control_steps=100) for i in range(4)]}

    monkeypatch.setattr(submit.evaluation, "evaluate", evaluated)
    submission = submit.main(arguments(tmp_path, retries=2))
    assert submission.facts.retries == 2 and submission.entries()["retries"] == 2
    assert submission.run is not None and "--policy base --retries 2 --episodes" in submission.run.command
    submit.main(submit.Args(reproduce=tmp_path / "file.json", by="Somebody else", workers=1, quiet=True))
    submit.main(arguments(tmp_path))
    assert played == [2, 2, 0] and "retries" not in json.loads((tmp_path / "file.json").read_text())


def test_cards_tell_what_training_took(weights, tmp_path):
    assert submit.trained_on("Threading", "tuned", None) == {"demonstrations": 1500, "training_steps": 100_000}
    # From cameras the insertion is another one, of 60,000 steps.
    assert submit.trained_on("Threading", "tuned", None, "camera")["training_steps"] == 120_000
    insert = f"{weights}/residual-insert.safetensors"
    assert submit.trained_on("Threading", insert, None)["training_steps"] == 40_000
    assert set(submit.trained_on("Threading", "random", None).values()) == {None}
    assert submit.trained_on("Threading", str(tmp_path / "uncarded.safetensors"), None)["training_steps"] is None
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(WeightsError, match="half.json is not a card"):
        submit.trained_on("Threading", str(tmp_path / "half.safetensors"), None)


def test_a_reproduction_that_agrees_is_noted(submitted, tmp_path, capsys):
    path = tmp_path / "file.json"
    submitted[0].write(path)
    args = submit.Args(reproduce=path, by="Somebody else", workers=1)
    after = submit.main(args)
    assert after == Submission.read(path) and after.status == "reproduced" and after.reproduced_by == "Somebody else"
    assert after.run is not None and after.run == submitted[0].run and after.reproduction is not None
    assert after.reproduction.strict_successes == after.run.strict_successes
    out = capsys.readouterr().out
    assert "A method, Threading D2: reproduced" in out and "not the full protocol" in out and f"written: {path}" in out


def test_a_reproduction_that_disagrees_changes_nothing(submitted, tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    submitted[0].write(path)
    before = path.read_text()
    other = dataclasses.replace(submitted[0].run, strict_successes=0, reference_successes=0)
    monkeypatch.setattr(submit, "play", lambda *_: other)
    with pytest.raises(
        SubmissionError, match=r"not reproduced: .*file\.json states 1\.000, here it is 0\.000 \[0\.000"
    ):
        submit.main(submit.Args(reproduce=path, by="Somebody else"))
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"method": ""}, "method is empty"),
        ({"authors": ""}, "authors is empty"),
        ({"task": "Knitting"}, "task is 'Knitting'"),
        ({"link": "here"}, "must begin with https"),
        ({"perception": "touch"}, "unknown perception 'touch'"),
        ({"by": "me"}, "by says who reproduces"),
        ({"out": "file.txt"}, "suffix '.txt'"),
        ({"episodes": 0}, "episodes is 0"),
        ({"policy": "best"}, "no weights file best"),
        ({"weights": "nowhere"}, "no weights folder nowhere"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_played(more, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "evaluate", None)
    with pytest.raises((InvalidArgument, SubmissionError, WeightsError), match=message):
        submit.main(arguments(tmp_path, **more))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("submission", "more", "message"),
    [
        (Submission(FACTS, run()), {}, "say who reproduces it, with --by"),
        (Submission(FACTS, run()), {"by": "me", "episodes": 3, "method": "x"}, r"takes \['method', 'episodes'\] from"),
        (Submission(FACTS, stated=0.4), {"by": "me"}, "states a rate, but not how to play for it"),
        (
            Submission(dataclasses.replace(FACTS, weights="https://x.org"), run()),
            {"by": "me"},
            "at https://x.org; name",
        ),
        (Submission(dataclasses.replace(FACTS, weights=""), run()), {"by": "me"}, "no place it tells"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(submission, more, message, tmp_path):
    submission.write(tmp_path / "file.json")
    with pytest.raises((InvalidArgument, SubmissionError), match=message):
        submit.main(submit.Args(reproduce=tmp_path / "file.json", **more))


def test_the_documented_way_for_other_agents_works(tmp_path, monkeypatch):
    """docs/benchmark.md's code, with an agent, and with three episodes of the state instead of 300 from pictures."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "benchmark.md").read_text(), flags=re.DOTALL)
    for old, new in (("episodes=100", "episodes=1"), (', obs_mode="rgb"', ""), ('"camera"', '"state"')):
        assert code.count(old) == 1
        code = code.replace(old, new)

    class MyAgent:
        resets = 0

        def reset(self):
            MyAgent.resets += 1

        def __call__(self, observation):
            return np.zeros(7)

    monkeypatch.chdir(tmp_path)
    exec(code, {"MyAgent": MyAgent})
    (submission,) = read_all(tmp_path).values()
    assert submission.facts.observation == "state" and submission.run is not None
    assert (submission.run.plays, submission.run.strict_successes) == ((3, 1, EVALUATION_SEED), 0)
    assert (submission.run.control_steps, submission.run.connect_steps) == (400.0, 0.0)
    assert MyAgent.resets == 3


DEPLOYED = {"termination": "predictor", "initiation": "student"}


@pytest.mark.parametrize(
    ("mode", "settings", "facts", "message"),
    [
        ("Hybrid", {}, {}, "the simulator ends skills.*termination='predictor'.*initiation='student'"),
        ("Residual", DEPLOYED | {"termination": "sustained"}, {}, "the simulator ends skills"),
        ("Residual", DEPLOYED | {"stage": "insert"}, {}, "one stage; the protocol plays whole tasks"),
        ("Residual", DEPLOYED | {"retries": 5}, {}, "retries is 0, and the environment's 5"),
        ("Residual", DEPLOYED | {"pose_noise": (0.01, 0.05)}, {}, "starts are as planned"),
        ("Residual", DEPLOYED, {"task": "Square", "variant": "D0"}, "'Square'.*'Threading'.*'D0'.*'D2'"),
        ("Residual", DEPLOYED, {"observation": "camera"}, "tells where objects are; make it with perception='camera'$"),
        (None, {}, {"observation": "camera"}, "perception='camera' or obs_mode='rgb'"),
        (None, {}, {"retries": 3}, "modes that plan"),
        (None, {}, {"task": "Tea"}, "task is 'Tea'"),
    ],
)
def test_an_environment_that_is_not_what_is_said_of_it_is_refused(mode, settings, facts, message):
    env = gym.make(env_id("Threading", "D2", mode), **settings)
    said = dataclasses.replace(Facts("My method", "My name", "Threading", "D2"), **facts)
    with pytest.raises(SubmissionError, match=message):
        submission_of(said, env, lambda observation: pytest.fail("nothing is to be played"))


@pytest.mark.parametrize(
    ("mode", "settings", "facts"),
    [
        ("Hybrid", DEPLOYED | {"termination": lambda observation: False}, {}),
        ("Residual", DEPLOYED | {"retries": 5}, {"retries": 5}),
        (None, {}, {}),
    ],
)
def test_what_is_as_deployed_is_played(mode, settings, facts):
    env = gym.wrappers.TimeLimit(gym.make(env_id("Threading", "D2", mode), **settings), 5)
    said = dataclasses.replace(Facts("My method", "My name", "Threading", "D2"), **facts)
    submission = submission_of(said, env, lambda observation: np.zeros(7), seeds=2, episodes=1, quiet=True)
    assert submission.run is not None and submission.run.plays == (2, 1, EVALUATION_SEED)
