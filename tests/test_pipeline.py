"""The steps of ``reinforcegen pipeline``, none of which is run; a task's own variants."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from reinforcegen_envs import cli
from reinforcegen_envs.agents import pipeline, termination
from reinforcegen_envs.agents.steps import MANY, SPREAD, StepError, Steps
from reinforcegen_envs.tasks import TASKS


@pytest.fixture
def steps(monkeypatch):
    """Name -> command line of what the pipeline would run, with nothing run."""
    ran: dict[str, list[str]] = {}

    def note(self, name, command, after=()):
        assert set(after) <= set(ran), "it needs what was not run"
        ran[name] = command
        (self.out / "weights").mkdir(exist_ok=True)
        result = {"success": 0.5, "interval": [0.4, 0.6], "stages": {}, "failures": {}}
        (self.out / f"{name}.log").write_text(json.dumps(result))

    monkeypatch.setattr(Steps, "run", note)
    return ran


def test_the_pipeline_s_steps_are_commands_that_are_accepted(steps, monkeypatch, tmp_path):
    learning: dict[str, Any] = {"residual_scale": 0.5, "exploration_noise": 0.2, "noise_memory": 0.9}
    pipeline.main(pipeline.Args(out=tmp_path, source=Path("own.hdf5"), other_demos=5, pool=3, **learning))
    pools = [f"pool-{stage}-{kind}" for stage in ("grasp", "insert") for kind in ("train", "held-out")]
    assert list(steps) == [
        "generate-D0", "generate-D1", "generate-D2", "bc", "evaluate-base", "evaluate-base-noise",
        *pools[:2], "td3-grasp", *pools[2:], "td3-insert", "termination", "evaluate-tuned", "evaluate-tuned-noise",
        "evaluate-tuned-D0", "evaluate-tuned-D1",
    ]  # fmt: skip
    parsed = {}
    for name, (flag, module, *words) in steps.items():
        monkeypatch.setattr(sys, "argv", [module, *words])
        module = "reinforcegen_envs.evaluation.command" if module == "reinforcegen_envs.evaluate" else module
        parsed[name] = cli.parse(importlib.import_module(module).Args)
        assert flag == "-m"
    assert parsed["generate-D1"].source == parsed["bc"].source == Path("own.hdf5")
    assert {args.weights for args in parsed.values() if hasattr(args, "weights")} == {tmp_path / "weights"}
    assert [parsed[name].policy for name in ("evaluate-base", "evaluate-tuned")] == ["base", "tuned"]
    assert all(getattr(parsed["td3-insert"], name) == value for name, value in learning.items())
    assert [parsed[name].count for name in pools] == [3, 1, 3, 1]
    assert [parsed[name].variant for name in pools] == [("D2", "D0", "D2", "D1")] * 2 + [()] * 2
    assert [parsed[name].earlier_pool for name in pools[2:]] == [parsed[name].out for name in pools[:2]]
    assert json.loads((tmp_path / "weights" / "evaluation.json").read_text())["tuned"]["success"] == 0.5


def test_the_pipeline_with_foresight_trains_it_before_residual_rl(steps, monkeypatch, tmp_path):
    pipeline.main(pipeline.Args(out=tmp_path, pool=3, other_demos=5, foresight=True))
    assert list(steps).index("foresight") < list(steps).index("td3-grasp")
    for name in ("foresight", "td3-grasp", "td3-insert"):
        _, module, *words = steps[name]
        monkeypatch.setattr(sys, "argv", [module, *words])
        parsed = cli.parse(importlib.import_module(module).Args)
        assert name == "foresight" or parsed.foresight is True
        assert name != "foresight" or (parsed.weights, set(parsed.variant)) == (
            tmp_path / "weights",
            {"D0", "D1", "D2"},
        )


def test_the_pipeline_with_cameras_trains_an_estimator_and_tunes_again_under_it(steps, tmp_path):
    pipeline.main(pipeline.Args(task="Threading", out=tmp_path, cameras=True))
    names = list(steps)
    assert names.index("measure") > names.index("perceive") > names.index("termination")
    for name, perception in (
        ("camera-pool-grasp-train", "camera_errors"),
        ("camera-td3-insert", "camera_errors"),
        ("camera-termination", "camera"),
        ("evaluate-camera-tuned", "camera"),
    ):
        assert names.index(name) > names.index("measure")
        words = steps[name]
        assert words[words.index("--perception") + 1] == perception
        assert words[words.index("--weights") + 1] == str(tmp_path / "weights")


def test_the_pipeline_learns_before_the_cameras_themselves_where_it_is_told_to(steps, monkeypatch, tmp_path):
    pipeline.main(pipeline.Args(out=tmp_path, cameras=True, camera_loop=True, retries=5))
    parsed = {}
    for name, (_, module, *words) in steps.items():
        monkeypatch.setattr(sys, "argv", [module, *words])
        module = "reinforcegen_envs.evaluation.command" if module == "reinforcegen_envs.evaluate" else module
        parsed[name] = cli.parse(importlib.import_module(module).Args)
    assert parsed["camera-td3-insert"].perception == parsed["camera-pool-grasp-train"].perception == "camera"
    assert (
        parsed["td3-insert"].noise_memory == 0.0 and parsed["td3-insert"].residual_scale is None
    )  # td3_residual's own
    assert parsed["camera-td3-insert"].quiet_envs == 4 and parsed["td3-insert"].quiet_envs == 0
    assert {args.retries for name, args in parsed.items() if name.startswith("evaluate")} == {5}
    with pytest.raises(ValueError, match="--cameras"):
        pipeline.main(pipeline.Args(out=tmp_path, camera_loop=True))


def test_stages_that_begin_with_an_object_in_the_hand_can_learn_for_longer(steps, tmp_path):
    def totals(**settings):
        pipeline.main(pipeline.Args(task="ThreePieceAssembly", out=tmp_path, td3_steps=7000, **settings))
        words = [steps[f"td3-{stage.name}"] for stage in TASKS["ThreePieceAssembly"].stages]
        return [int(w[w.index("--total-steps") + 1]) for w in words]

    assert totals() == [7000, 7000, 7000, 7000]
    assert totals(held_steps=9000) == [7000, 9000, 7000, 9000]


def test_the_pipeline_without_residual_rl_ends_after_imitation(steps, tmp_path):
    pipeline.main(pipeline.Args(out=tmp_path, td3_steps=0))
    assert list(steps) == ["generate-D2", "bc", "evaluate-base", "evaluate-base-noise"]


def test_the_pipeline_takes_a_task_with_variants_of_its_own(own_task, steps, tmp_path):
    pipeline.main(pipeline.Args(task="Own", variant="Far", other_demos=5, td3_steps=0, out=tmp_path))
    assert [name for name in steps if name.startswith("generate")] == ["generate-Near", "generate-Far"]
    with pytest.raises(ValueError, match=r"'D2'.*'Near', 'Far'"):
        pipeline.main(pipeline.Args(task="Own", out=tmp_path))


class Graph(Steps):
    """Notes what would be run."""

    def __init__(self, out):
        super().__init__(out)
        self.commands: dict[str, list[str]] = {}
        self.needs: dict[str, set[str]] = {}

    def run(self, name, command, after=()):
        self.commands[name] = command
        self.needs[name] = set(after).union(*(self.needs[step] for step in after))


def test_a_step_waits_for_all_that_it_reads(tmp_path):
    """On a cluster, steps run side by side unless one says that it needs the other."""
    args = pipeline.Args(out=tmp_path, other_demos=5, cameras=True, foresight=True)
    graph = Graph(tmp_path)
    pipeline.plan(args, graph)
    writes = {words[words.index("--out") + 1]: name for name, words in graph.commands.items() if "--out" in words}
    read = 0
    for name, words in graph.commands.items():
        for word in {*words} & {*writes} - {words[words.index("--out") + 1] if "--out" in words else ""}:
            assert writes[word] in graph.needs[name], f"{name} reads {word}"
            read += 1
    assert read > 30
    # What changes a folder of weights, and what is evaluated with it, do not run side by side.
    changes = [
        "foresight",
        "td3-grasp",
        "td3-insert",
        "termination",
        "perceive",
        "measure",
        "camera-td3-grasp",
        "camera-td3-insert",
    ]
    for before, after in zip(changes, [*changes[1:], "camera-termination"], strict=True):
        assert before in graph.needs[after]
    assert {"evaluate-base", "evaluate-base-noise"} <= graph.needs["termination"]
    assert "camera-termination" in graph.needs["evaluate-camera-tuned-D0"]
    assert "evaluate-base" not in graph.needs["td3-insert"] and "generate-D0" not in graph.needs["generate-D1"]


def test_what_a_cluster_is_told_commands_accept(tmp_path):
    graph = Graph(tmp_path)
    pipeline.plan(pipeline.Args(out=tmp_path, cameras=True, foresight=True), graph)
    taking: dict[str, set[str]] = {"--ray": set(), "--workers": set()}
    for _, module, *_ in graph.commands.values():
        kind = module.removeprefix("reinforcegen_envs.")
        module = "reinforcegen_envs.evaluation.command" if kind == "evaluate" else module
        accepted = importlib.import_module(module).Args.__dataclass_fields__
        taking["--ray"] |= {kind} if "ray" in accepted else set()
        taking["--workers"] |= {kind} if "workers" in accepted and "ray" not in accepted else set()
    assert taking == {"--ray": {*SPREAD}, "--workers": {*MANY}}


def test_all_tasks_have_a_folder_each(monkeypatch, tmp_path):
    planned = []
    monkeypatch.setattr(pipeline, "plan", lambda args, steps: planned.append((args.task, args.out, steps.out)) or [])
    monkeypatch.setattr(pipeline, "report", lambda args, steps, rows: None)
    pipeline.main(pipeline.Args(task="all", out=tmp_path))
    assert planned == [(task, tmp_path / task.lower(), tmp_path / task.lower()) for task in TASKS]
    with pytest.raises(ValueError, match="own.hdf5 is of one task"):
        pipeline.main(pipeline.Args(task="all", source=Path("own.hdf5"), out=tmp_path))


def test_a_failed_step_is_one_error_that_shows_the_end_of_its_log(tmp_path):
    failing = Steps(tmp_path)
    with pytest.raises(StepError, match=r"step bad failed; .*bad\.log ends with:\nout of cubes"):
        failing.run("bad", ["-c", "raise SystemExit('out of cubes')"])
    assert failing.seconds == {} and not failing.file.exists()


def test_a_step_that_was_done_with_other_settings_is_not_taken_for_done(tmp_path, capsys, monkeypatch):
    """Threading's grasp is not Coffee's, and 100 steps are not 500; a folder may be moved."""

    def command(steps, folder):
        return ["-c", "pass", "--total-steps", steps, "--out", str(folder / "weights")]

    first = tmp_path / "first"
    first.mkdir()
    Steps(first).run("td3-grasp", command("100", first))
    with pytest.raises(StepError, match=r"(?s)td3-grasp.*other settings.*steps 100.*steps 500.*another folder"):
        Steps(first).run("td3-grasp", command("500", first))
    moved = first.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    Steps(Path("moved")).run("td3-grasp", command("100", Path("moved")))
    assert "done before" in capsys.readouterr().out
    (moved / "commands.json").unlink()  # as older versions left it
    Steps(moved).run("td3-grasp", command("500", moved))


def test_a_trainer_that_was_stopped_goes_on(tmp_path):
    """Its run's folder holds a checkpoint, and it would not overwrite that."""
    trainer = """import sys, pathlib
checkpoint = pathlib.Path(sys.argv[2], sys.argv[4], "checkpoint.pt")
if "--resume" not in sys.argv:
    checkpoint.parent.mkdir()
    checkpoint.touch()
    sys.exit("stopped")
"""
    run = ["-c", trainer, "--runs-dir", str(tmp_path), "--run-name", "td3-grasp"]
    steps = Steps(tmp_path)
    with pytest.raises(StepError, match="stopped"):
        steps.run("td3-grasp", run)
    steps.run("td3-grasp", run)
    assert list(steps.seconds) == ["td3-grasp"]


def test_termination_plays_on_all_variants_of_the_task_unless_some_are_named(own_task, monkeypatch, tmp_path):
    made: list[str] = []
    monkeypatch.setattr(termination, "make_env", lambda task, variant, mode, **kwargs: made.append(variant))
    termination.Player(termination.Args(tmp_path, ()), own_task)
    assert made == ["Near", "Near", "Far", "Far"], "with starts as planned and with noisy ones"
    made.clear()
    termination.Player(termination.Args(tmp_path, (), variants=("Far",)), own_task)
    assert made == ["Far", "Far"]
