"""How well policies do: episodes played, counted and drawn."""

from reinforcegen_envs.evaluation.command import Args, evaluate, main, make, write_video
from reinforcegen_envs.evaluation.play import Episode, RandomPolicy, play
from reinforcegen_envs.evaluation.summary import summarise, write_csv
from reinforcegen_envs.evaluation.video import record

__all__ = [
    "Args", "Episode", "RandomPolicy", "evaluate", "main", "make", "play", "record", "summarise", "write_csv",
    "write_video",
]  # fmt: skip
