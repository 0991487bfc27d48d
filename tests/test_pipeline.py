"""The steps of ``reinforcegen pipeline``, none of which is run; a task's own variants."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from reinforcegen_envs import cli
from reinforcegen_envs.agents import pipeline, termination


@pytest.fixture
def steps(monkeypatch):
    """Name -> command line of what the pipeline would run, with nothing run."""
    ran: dict[str, list[str]] = {}

    def note(self, name, command):
        ran[name] = command
        (self.out / "weights").mkdir(exist_ok=True)
        result = {"success": 0.5, "interval": [0.4, 0.6], "stages": {}, "failures": {}}
        (self.out / f"{name}.log").write_text(json.dumps(result))

    monkeypatch.setattr(pipeline.Steps, "run", note)
    return ran


def test_the_pipeline_s_steps_are_commands_that_are_accepted(steps, monkeypatch, tmp_path):
    pipeline.main(pipeline.Args(out=tmp_path, source=Path("own.hdf5"), other_demos=5, pool=3))
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
    assert names.index("perceive") > names.index("termination")
    for name in ("camera-pool-grasp-train", "camera-td3-insert", "camera-termination", "evaluate-camera-tuned"):
        assert names.index(name) > names.index("perceive")
        words = steps[name]
        assert words[words.index("--perception") + 1] == "camera"
        assert words[words.index("--weights") + 1] == str(tmp_path / "weights")


def test_the_pipeline_without_residual_rl_ends_after_imitation(steps, tmp_path):
    pipeline.main(pipeline.Args(out=tmp_path, td3_steps=0))
    assert list(steps) == ["generate-D2", "bc", "evaluate-base", "evaluate-base-noise"]


def test_the_pipeline_takes_a_task_with_variants_of_its_own(own_task, steps, tmp_path):
    pipeline.main(pipeline.Args(task="Own", variant="Far", other_demos=5, td3_steps=0, out=tmp_path))
    assert [name for name in steps if name.startswith("generate")] == ["generate-Near", "generate-Far"]
    with pytest.raises(ValueError, match=r"'D2'.*'Near', 'Far'"):
        pipeline.main(pipeline.Args(task="Own", out=tmp_path))


def test_a_failed_step_is_one_error_that_shows_the_end_of_its_log(tmp_path):
    failing = pipeline.Steps(tmp_path)
    with pytest.raises(pipeline.StepError, match=r"step bad failed; .*bad\.log ends with:\nout of cubes"):
        failing.run("bad", ["-c", "raise SystemExit('out of cubes')"])
    assert failing.seconds == {} and not failing.file.exists()


def test_termination_plays_on_all_variants_of_the_task_unless_some_are_named(own_task, monkeypatch, tmp_path):
    made: list[str] = []
    monkeypatch.setattr(termination, "make_env", lambda task, variant, mode, **kwargs: made.append(variant))
    termination.Player(termination.Args(tmp_path, ()), own_task)
    assert made == ["Near", "Near", "Far", "Far"], "with starts as planned and with noisy ones"
    made.clear()
    termination.Player(termination.Args(tmp_path, (), variants=("Far",)), own_task)
    assert made == ["Far", "Far"]
