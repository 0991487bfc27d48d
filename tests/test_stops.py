"""Termination classifiers judged skill by skill."""

import numpy as np
import pytest

from reinforcegen_envs.agents.stops import Rollouts, judged


def judge(*skills):
    """Skills as (finished, positive), one digit a control step."""
    finished = [[int(digit) for digit in finished] for finished, _ in skills]
    positive = [[int(digit) for digit in positive] for _, positive in skills]
    episode = np.concatenate([[number] * len(steps) for number, steps in enumerate(finished)])
    steps = np.concatenate(finished)
    logits = np.concatenate(positive) * 4.0 - 2.0
    return judged(logits, Rollouts(np.zeros((len(steps), 1)), steps.astype(np.float32), episode), threshold=0.7)


def test_skills_end_after_five_positive_steps():
    found = judge(
        ("000111111111", "000011111111"),  # five steps after it was finished
        ("000111111111", "000111111111"),  # four
        ("000000000111", "011111000000"),  # too early
        ("000011111111", "111101111011"),  # never five in a row
        ("000000000000", "000000000000"),  # never finished, never said to be
        ("00000000", "11111111"),  # never finished
        ("00", "11"),  # shorter than five steps
    )
    assert found["skills"] == 7 and found["delay"] == pytest.approx(4.5)
    assert found["premature"] == pytest.approx(2 / 7)
    assert found["missed"] == pytest.approx(1 / 4), "of the four that were finished"


def test_steps_are_judged_one_by_one():
    found = judge(("0011", "0101"), ("01", "01"))
    assert (found["steps"], found["true_positive"], found["false_positive"]) == (6, 2 / 3, 1 / 3)
    assert found["auc"] == pytest.approx(6 / 9)
    assert judge(("000", "010"))["auc"] is None and judge(("000", "010"))["delay"] is None
