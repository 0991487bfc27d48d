"""Shards of a generation and of an evaluation, and what merging them gives: the file of one process, byte for byte."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest

from reinforcegen_envs import commands, evaluate
from reinforcegen_envs.demos import generate as generation
from reinforcegen_envs.demos.generate import GenerationError, generate
from reinforcegen_envs.demos.hdf5 import DemoFileError, read_attrs, read_demos, write_demos
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.merge import Args, main, merge_csv, merge_demos
from reinforcegen_envs.shards import Shard


def test_shards_divide_everything():
    assert Shard.parse(None).of(range(7)) == range(7)
    parts = [Shard.parse(f"{i}/3").of(range(7)) for i in (1, 2, 3)]
    assert [list(part) for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]
    assert str(Shard.parse("2/16")) == "2/16"


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5"])
def test_what_is_no_shard(text):
    with pytest.raises(InvalidArgument, match=r"shard is .*1/16 to 16/16"):
        Shard.parse(text)


# --- generation ---


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of a file that one process made, and of the three shards of the same run."""
    folder = tmp_path_factory.mktemp("made")
    whole = generation.Args(variant="D0", count=4, out=folder / "whole.hdf5", workers=1, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "CHUNK", 2)
        generate(whole)
        for i in (1, 2, 3):
            generate(dataclasses.replace(whole, shard=f"{i}/3", max_attempts=9, out=folder / f"{i}.hdf5"))
    return folder


def shards(folder, *numbers):
    return [folder / f"{i}.hdf5" for i in numbers]


def test_merged_shards_are_the_file_of_one_process(made, tmp_path):
    out = tmp_path / "merged.hdf5"
    assert merge_demos(shards(made, 3, 1, 2), out) == 4
    assert out.read_bytes() == (made / "whole.hdf5").read_bytes()
    attempts = [demo.attrs["seed"][1] for path in shards(made, 1, 2, 3) for demo in read_demos(path)]
    assert len(set(attempts)) == len(attempts) > 4 and max(attempts) < 9
    # Fewer, or more: what the shards hold beyond the count that was asked for.
    assert merge_demos(shards(made, 1, 2, 3), out, 2) == 2
    assert merge_demos(shards(made, 1, 2, 3), out, len(attempts)) == len(attempts)
    assert [demo.attrs["seed"][1] for demo in read_demos(out)] == sorted(attempts)


def test_a_shard_can_be_interrupted_and_is_taken_up(made, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "CHUNK", 2)
    args = generation.Args(
        variant="D0", count=4, out=tmp_path / "1.hdf5", workers=1, quiet=True, shard="1/3", max_attempts=9
    )
    save = generation._save_chunk

    def save_and_stop(path, results):
        save(path, results)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generation, "_save_chunk", save_and_stop)
        generate(args)
    with pytest.raises(GenerationError, match="unfinished run with other settings"):
        generate(dataclasses.replace(args, shard="2/3"))
    generate(args)
    assert args.out.read_bytes() == (made / "1.hdf5").read_bytes()


def test_shards_that_do_not_belong_together(made, tmp_path, monkeypatch):
    out = tmp_path / "merged.hdf5"
    monkeypatch.setattr(generation, "CHUNK", 2)
    other = generation.Args(
        variant="D0", count=4, out=tmp_path / "o.hdf5", workers=1, quiet=True, shard="1/3", max_attempts=9, seed=1
    )
    generate(other)
    for paths, message in (
        (shards(made, 1, 3), "shards 2/3 are missing"),
        (shards(made, 1, 2, 1), "both shard 1/3"),
        ([*shards(made, 2, 3), other.out], r"o\.hdf5 and .*2\.hdf5 are shards of different runs \(settings differ\)"),
        ([*shards(made, 1, 2, 3), made / "whole.hdf5"], r"whole\.hdf5 is no shard"),
        ([*shards(made, 1, 2, 3), source_file("Square")], "of another environment"),
        ([tmp_path / "nowhere.hdf5"], "no demonstration file"),
    ):
        with pytest.raises(DemoFileError, match=message):
            merge_demos(paths, out)
    with pytest.raises(DemoFileError, match=r"hold \d demonstrations, not 50; keep them all with --count \d"):
        merge_demos(shards(made, 1, 2, 3), out, 50)
    assert not out.exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shard": "1/3"}, "shard 1/3 needs max_attempts.*e.g. 6"),
        ({"shard": "1/3", "max_attempts": 40}, "max_attempts 40 are 2 parts of 20 attempts.*at least 60"),
        ({"shard": "one"}, "shard is 'one'"),
    ],
)
def test_a_shard_says_what_it_needs(changes, message, tmp_path):
    with pytest.raises(InvalidArgument, match=message):
        generate(dataclasses.replace(generation.Args(count=4, out=tmp_path / "x.hdf5"), **changes))
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_shards_follow_one_another(source_demos, tmp_path):
    env_args = {"env_name": "Threading_D0"}
    parts = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    for path, some in zip(parts, (source_demos[:2], source_demos[1:4]), strict=True):
        write_demos(path, [dataclasses.replace(demo, name="") for demo in some], env_args, {"settings": path.name})
    out = tmp_path / "merged.hdf5"
    assert merge_demos(parts, out) == 5
    assert json.loads(read_attrs(out)["settings"]) == ["a.hdf5", "b.hdf5"]
    demos = read_demos(out)
    assert [demo.name for demo in demos] == [f"demo_{i}" for i in range(5)]
    for demo, expected in zip(demos, [*source_demos[:2], *source_demos[1:4]], strict=True):
        np.testing.assert_array_equal(demo.actions, expected.actions)


# --- evaluation ---


@pytest.fixture(scope="module")
def tables(weights, tmp_path_factory):
    """Folder of a table that one process wrote, and of those of two shards."""
    folder = tmp_path_factory.mktemp("tables")
    args = evaluate.Args(policy="base", episodes=5, seeds=1, workers=1, quiet=True, weights=weights)
    for name, shard in (("whole", None), ("1", "1/2"), ("2", "2/2")):
        evaluate.main(dataclasses.replace(args, csv=folder / f"{name}.csv", shard=shard))
    return folder


def test_merged_tables_are_that_of_one_process(tables, tmp_path):
    out = tmp_path / "merged.csv"
    summary = merge_csv([tables / "2.csv", tables / "1.csv"], out)
    assert out.read_bytes() == (tables / "whole.csv").read_bytes()
    assert summary["episodes"] == 5 and list(summary["stages"]) == ["1", "2"]


def test_a_shard_is_not_written_over_another_one(tables, tmp_path, weights):
    """Two shards with one name for the table: the first one's episodes were lost without a word."""
    table = tmp_path / "table.csv"
    table.write_bytes((tables / "1.csv").read_bytes())
    args = evaluate.Args(policy="base", episodes=5, seeds=1, workers=1, quiet=True, weights=weights, csv=table)
    with pytest.raises(
        InvalidArgument, match=r"table.csv has episodes that are not of shard 2/2, such as seed 1000000"
    ):
        evaluate.main(dataclasses.replace(args, shard="2/2"))
    assert table.read_bytes() == (tables / "1.csv").read_bytes()
    evaluate.main(dataclasses.replace(args, shard="1/2"))  # its own may be written again
    assert table.read_bytes() == (tables / "1.csv").read_bytes()


def test_tables_that_cannot_be_merged(tables, tmp_path):
    foreign, cut = tmp_path / "foreign.csv", tmp_path / "cut.csv"
    foreign.write_text("a,b\n1,2\n")
    cut.write_text((tables / "1.csv").read_text()[:-12])
    for names, message in (
        ([tables / "1.csv"], "no table has seed 1000001"),
        ([tables / "1.csv", tables / "whole.csv"], "seed 1000000 is in .*whole.csv and in .*1.csv"),
        ([foreign], "foreign.csv is no table of episodes"),
        ([cut], "cut.csv is damaged"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            merge_csv(names, tmp_path / "merged.csv")
    assert not (tmp_path / "merged.csv").exists()


def test_a_shard_without_episodes_is_refused():
    with pytest.raises(InvalidArgument, match="shard 9/9 has none of the 6 episodes"):
        evaluate.evaluate(evaluate.Args(episodes=3, seeds=2, shard="9/9"))


# --- the command ---


def test_the_command_merges(made, tables, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for out, files, said in (
        ("d0.hdf5", shards(made, 1, 2, 3), "d0.hdf5: 4 demonstrations of 3 files"),
        ("d0.csv", [tables / "1.csv", tables / "2.csv"], "success (strict)"),
    ):
        monkeypatch.setattr(sys, "argv", ["reinforcegen", "merge", "--data", *map(str, files), "--out", out])
        commands.main()
        assert said in capsys.readouterr().out and os.path.isfile(out)


@pytest.mark.parametrize(
    "args, message",
    [
        (Args(), "data must name .hdf5 files"),
        (Args(("a.csv",)), "data must name .hdf5 files"),  # type: ignore[arg-type]
        (Args(("a.csv",), "b.csv", 3), "count is for demonstrations"),  # type: ignore[arg-type]
        (Args(("a.npz",), "b.npz"), "suffix '.npz'"),  # type: ignore[arg-type]
        (Args(("a.csv",), "b.csv"), "a.csv"),  # type: ignore[arg-type]
    ],
)
def test_what_the_command_refuses(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InvalidArgument, OSError), match=message):
        main(args)
    assert list(tmp_path.iterdir()) == []
