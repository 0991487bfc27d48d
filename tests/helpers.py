"""What the task tests do in the same way."""

import numpy as np


def play(env, steps=15, action=None):
    """Repeat an action, by default none; whether strict success, and whether the reference check, held at any step."""
    action = np.zeros(7) if action is None else action
    strict = reference = False
    for _ in range(steps):
        _, _, terminated, _, info = env.step(action)
        assert terminated == info["success"] == info["is_success"]
        strict |= info["success"]
        reference |= info["reference_success"]
    return strict, reference
