"""Intervals for success rates, and the seeds that they are measured on."""

from __future__ import annotations

import math
from statistics import NormalDist

EVALUATION_SEED = 1_000_000
"""first evaluation seed; training uses smaller ones"""


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate: sound for few episodes and for rates near 0 and 1.

    Args:
        successes: episodes that succeeded, 0 to ``n``.
        n: episodes; 0 gives (0, 1), since nothing is known then.
        confidence: between 0 and 1, both excluded.

    Returns:
        Lower and upper end, within [0, 1].

    Raises:
        ValueError: ``successes`` is not within 0 to ``n``, or ``confidence`` not between 0 and 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} episodes; successes must lie in 0 to the number of episodes")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    scale = 1.0 / (1.0 + z * z / n)
    centre = scale * (rate + z * z / (2 * n))
    half = scale * z * math.sqrt(rate * (1.0 - rate) / n + z * z / (4 * n * n))
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
