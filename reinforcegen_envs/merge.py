"""Put together what many machines made: shards of a generation or an evaluation, or files that belong together.

    reinforcegen merge --data d2-*.hdf5 --out d2.hdf5

Shards of a generation (``generate --shard i/n``) give the file, byte for byte, that one process would have made; shards of an
evaluation (``evaluate --shard i/n --csv FILE``) its table. Demonstration files that are no shards are put one after the other.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, checked
from reinforcegen_envs.demos.hdf5 import Demo, DemoFileError, DemoWriter, iter_demos, read_attrs
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation.summary import read_csv, report, summarise, write_csv
from reinforcegen_envs.files import check_output
from reinforcegen_envs.shards import Shard

SUFFIXES = (".hdf5", ".csv")


@dataclass
class Args:
    """Put shards together: demonstrations (.hdf5), or tables of episodes (.csv)."""

    data: tuple[Path, ...] = ()
    """the files, all of one kind"""
    out: Path = Path("merged.hdf5")
    """file to write"""
    count: Count | None = None
    """demonstrations to keep, the first ones; default: as many as the shards were asked for, or all"""


def merge_demos(paths: Sequence[Path], out: Path, count: int | None = None) -> int:
    """Write the demonstrations of several files into one, numbered anew; subsets (filters) are not kept.

    Args:
        paths: all shards of one generation, in any order; or files of one environment, in the order that they are to have.
        out: the file to write.
        count: how many to keep, the first ones; None: what the shards were asked for, or all.

    Returns:
        How many there are.

    Raises:
        DemoFileError: an unusable file; shards of different runs; a shard that is missing or there twice; files of
            different environments; fewer demonstrations than asked for.
    """
    attrs = [read_attrs(path) for path in paths]
    for path, found in zip(paths, attrs, strict=True):
        if found["env_args"] != attrs[0]["env_args"]:
            raise DemoFileError(f"{path} is of another environment than {paths[0]}; merge files of one")
    demos: Iterable[Demo]
    if any("shard" in found for found in attrs):
        asked = _check_shards(paths, attrs)
        count, settings = count or asked, attrs[0]["settings"]
        demos = heapq.merge(*map(iter_demos, paths), key=lambda demo: int(demo.attrs["seed"][1]))
    else:
        settings = json.dumps([found.get("settings", "") for found in attrs])
        demos = chain.from_iterable(map(iter_demos, paths))
    with DemoWriter(out, attrs[0]["env_args"], {"settings": settings} | _meaning(attrs)) as writer:
        for demo in islice(demos, count):
            writer.add(replace(demo, name=""))
        if count is not None and len(writer) < count:
            raise DemoFileError(
                f"the files hold {len(writer)} demonstrations, not {count}; keep them all with --count {len(writer)}, or "
                "generate shards with more --max-attempts"
            )
        return len(writer)


def _meaning(attrs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What rows and their actions are, as far as all files say the same."""
    said = {name: {found.get(name, "") for found in attrs} for name in ("rows", "actions")}
    return {name: texts.pop() for name, texts in said.items() if len(texts) == 1 and "" not in texts}


def _check_shards(paths: Sequence[Path], attrs: Sequence[dict[str, Any]]) -> int:
    """Check that the files are all shards of one generation, each once; returns how many demonstrations it asked for."""
    numbers: dict[int, Path] = {}
    first: Any = None
    for path, found in zip(paths, attrs, strict=True):
        if "shard" not in found:
            raise DemoFileError(f"{path} is no shard, but others are; merge the shards first")
        run = json.loads(found["shard"]) | {"settings": found["settings"]}
        shard = Shard.parse(run.pop("shard"))
        run["shards"] = shard.count
        if first is None:
            first = run
        elif run != first:
            differing = [name for name in run if run[name] != first[name]]
            raise DemoFileError(f"{path} and {paths[0]} are shards of different runs ({', '.join(differing)} differ)")
        if shard.number in numbers:
            raise DemoFileError(f"{path} and {numbers[shard.number]} are both shard {shard}; give each shard once")
        numbers[shard.number] = path
    missing = [str(Shard(i, first["shards"])) for i in range(1, first["shards"] + 1) if i not in numbers]
    if missing:
        raise DemoFileError(f"shards {', '.join(missing)} are missing; make them, and merge all")
    return first["count"]


def merge_csv(paths: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the episodes of several tables into one, in the order of their seeds.

    Returns:
        What `summarise` says of them all; stages go by their numbers.

    Raises:
        InvalidArgument: a file that is no such table, a seed that is there twice, or seeds that are missing in between.
    """
    origin: dict[int, Path] = {}
    episodes = []
    for path in paths:
        for episode in read_csv(path):
            if episode.seed in origin:
                raise InvalidArgument(f"seed {episode.seed} is in {path} and in {origin[episode.seed]}; give each once")
            origin[episode.seed] = path
            episodes.append(episode)
    episodes.sort(key=lambda episode: episode.seed)
    for before, after in zip(episodes, episodes[1:], strict=False):
        if after.seed != before.seed + 1:
            raise InvalidArgument(f"no table has seed {before.seed + 1}; a shard is missing")
    write_csv(out, episodes)
    return summarise(episodes, [str(i + 1) for i in range(len(episodes[0].entered))])


def main(args: Args) -> None:
    """Merge, and print what came of it.

    Raises:
        InvalidArgument, DemoFileError: files that cannot be merged; nothing is written.
    """
    args = checked(args)
    check_output(args.out, SUFFIXES)
    suffix = args.out.suffix.lower()
    if not args.data or any(path.suffix.lower() != suffix for path in args.data):
        raise InvalidArgument(f"data must name {suffix} files, as out is one; choose from {SUFFIXES}")
    if suffix == ".csv":
        if args.count is not None:
            raise InvalidArgument("count is for demonstrations; tables are merged whole")
        print(report(f"{args.out}: {len(args.data)} tables", merge_csv(args.data, args.out)))
    else:
        print(f"{args.out}: {merge_demos(args.data, args.out, args.count)} demonstrations of {len(args.data)} files")


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--data d2-1.hdf5 d2-2.hdf5 --out d2.hdf5")


if __name__ == "__main__":
    command()
