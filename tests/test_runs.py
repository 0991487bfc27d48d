"""The folder of a run: what it refuses to go on from, and the residual that ends up in the folder of weights."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from offset_reach import TRAINERS, read_csv, small  # noqa: E402

from reinforcegen_envs.agents import ppo_residual  # noqa: E402
from reinforcegen_envs.agents.runs import RunError  # noqa: E402
from reinforcegen_envs.policies.bundle import Bundle  # noqa: E402
from reinforcegen_envs.policies.mlp import load_mlps  # noqa: E402
from reinforcegen_envs.tasks import ThreadingTask  # noqa: E402


def contents(folder):
    """Every file in a folder, at any depth, and what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=TRAINERS)
def run(request, tmp_path):
    """A trainer, the arguments of a run that it finished, and the same to resume it."""
    module = TRAINERS[request.param]
    args = small(module, tmp_path, total_steps=256, eval_every=0, eval_episodes=1, final_episodes=1)
    module.main(args)
    return module, args, dataclasses.replace(args, resume=True, total_steps=384)


# ------------------------------------------------------------------------------------------------ weights

ENV_ID = "ReinforceGen/D0-Threading-Residual-v0"


@pytest.fixture
def bundle(weights, tmp_path):
    """A folder of weights without residuals."""
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder, ignore=shutil.ignore_patterns("residual-*"))
    return folder


def short(name, folder, **kwargs):
    """Arguments of a run on Threading that only goes through the motions."""
    sizes = {
        "td3_residual": {"warmup_steps": 16, "critic_only_updates": 2, "batch_size": 8},
        "ppo_residual": {"num_steps": 16},
    }
    defaults = {
        "env_id": ENV_ID,
        "num_envs": 2,
        "total_steps": 32,
        "eval_episodes": 1,
        "final_episodes": 1,
        "runs_dir": folder,
    }
    return TRAINERS[name].Args(**{**defaults, **sizes[name], **kwargs})


@pytest.mark.parametrize(("name", "stage"), [("td3_residual", "grasp"), ("ppo_residual", None)])
def test_the_residual_ends_up_in_the_folder_of_weights(name, stage, bundle, tmp_path):
    before = contents(bundle)
    args = short(name, tmp_path, stage=stage, weights=bundle, run_name="run")
    result = TRAINERS[name].main(args)
    file = f"residual-{stage or 'all'}"
    assert set(contents(bundle)) - set(before) == {f"{file}.safetensors", f"{file}.json"}
    assert contents(bundle).items() >= before.items()
    for suffix in (".safetensors", ".json"):
        assert (bundle / file).with_suffix(suffix).read_bytes() == (tmp_path / "run" / f"actor{suffix}").read_bytes()
    _, scale = Bundle.open(ThreadingTask, bundle).residual()
    _, card = load_mlps(
        bundle / f"{file}.safetensors", kind="residual", task="Threading", version=0, stage=stage or "all"
    )
    assert scale == 0.1 and card["evaluation"]["episodes"] == result["episodes"] == 1


@pytest.mark.parametrize("change", ["no weights", "another base", "full actions"])
def test_nothing_is_written_where_the_residual_does_not_belong(change, bundle, tmp_path, weights):
    kwargs = {
        "no weights": {},
        "another base": {"weights": bundle, "base_policy": Path(weights) / "base.safetensors"},
        "full actions": {"weights": bundle, "env_id": "ReinforceGen/D0-Threading-Skill-v0"},
    }[change]
    before = contents(bundle), contents(Path(weights))
    ppo_residual.main(short("ppo_residual", tmp_path / "runs", stage="grasp", **kwargs))
    assert (contents(bundle), contents(Path(weights))) == before
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "weights"}


def test_a_folder_of_weights_that_cannot_be_written_is_refused_at_once(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != bundle)
    with pytest.raises(RunError, match="weights cannot be written"):
        ppo_residual.main(short("ppo_residual", tmp_path / "runs", stage="grasp", weights=bundle))
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------------------------- damage


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not a checkpoint")


def other_object(path):
    torch.save([1, 2], path)


def changed(change):
    def damage(path):
        saved = torch.load(path, weights_only=True)
        change(saved)
        torch.save(saved, path)

    return damage


def flip(path):
    """Spoil bytes in the middle, as a bad disk does."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64 * [255])
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        text,
        other_object,
        changed(lambda saved: saved.pop("parts")),
        changed(lambda saved: saved["parts"].pop("agent")),
        changed(lambda saved: saved["parts"]["agent"].popitem()),
        changed(lambda saved: saved.pop("progress")),
        changed(lambda saved: saved["progress"].pop("step")),
        changed(lambda saved: saved["random"].update(numpy={})),
        changed(lambda saved: saved.update(seconds="long")),
        changed(lambda saved: saved.update(args=3)),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error_and_changes_nothing(run, damage):
    module, args, resumed = run
    folder = args.runs_dir / args.run_name
    damage(folder / "checkpoint.pt")
    before = contents(folder)
    with pytest.raises(RunError, match=r"checkpoint.pt is not a complete checkpoint of .*--overwrite"):
        module.main(resumed)
    assert contents(folder) == before


def test_spoiled_bytes_do_not_pass(run):
    module, args, resumed = run
    flip(args.runs_dir / args.run_name / "checkpoint.pt")
    with pytest.raises(RunError, match=r"checkpoint.pt is not a complete checkpoint"):
        module.main(resumed)


def test_another_trainers_checkpoint(run):
    module, args, _ = run
    other = next(m for m in TRAINERS.values() if m is not module)
    resumed = small(other, args.runs_dir, total_steps=384, resume=True)
    with pytest.raises(
        RunError, match=rf"is of {module.__name__.split('.')[-1]}, not of {other.__name__.split('.')[-1]}"
    ):
        other.main(resumed)


def test_a_half_written_row_is_dropped_on_resume(run):
    module, args, resumed = run
    progress = args.runs_dir / args.run_name / "progress.csv"
    rows = read_csv(progress.parent)
    with open(progress, "a") as file:
        file.write("1")  # of 1000: killed while writing
    module.main(resumed)
    assert read_csv(progress.parent)[: len(rows)] == rows
    assert all(None not in row.values() and row["step"] != "1" for row in read_csv(progress.parent))


def test_overwriting_leaves_nothing_of_the_older_run(run, monkeypatch):
    module, args, _ = run
    folder = args.runs_dir / args.run_name

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("reinforcegen_envs.agents.runs.evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        module.main(dataclasses.replace(args, overwrite=True, seed=9))
    assert {path.name for path in folder.iterdir() if "tfevents" not in path.name} == {"progress.csv"}
    with pytest.raises(RunError, match="no checkpoint .* to resume from"):
        module.main(dataclasses.replace(args, resume=True, seed=9))
