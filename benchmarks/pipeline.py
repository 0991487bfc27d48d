"""The published pipeline run: everything for Threading, from ten demonstrations to the tuned policy, with its wall clock.

    python benchmarks/pipeline.py --out runs/pipeline

The same as ``reinforcegen pipeline``.
"""

from reinforcegen_envs.agents.pipeline import command

if __name__ == "__main__":
    command()
