"""The folder of a run: what it refuses to go on from, and the residual that ends up in the folder of weights."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from offset_reach import TRAINERS, read_csv, small  # noqa: E402

from reinforcegen_envs.agents.runs import RunError  # noqa: E402


def contents(folder):
    """Every file of a folder and what it holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(params=TRAINERS)
def run(request, tmp_path):
    """A trainer, the arguments of a run that it finished, and the same to resume it."""
    module = TRAINERS[request.param]
    args = small(module, tmp_path, total_steps=256, eval_every=0, eval_episodes=1, final_episodes=1)
    module.main(args)
    return module, args, dataclasses.replace(args, resume=True, total_steps=384)


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
