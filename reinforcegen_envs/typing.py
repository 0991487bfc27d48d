"""Names for the arrays that signatures speak of; shapes, units and frames stand in the docstrings."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]  # poses, joints, actions, states
Observations: TypeAlias = NDArray[np.float32]  # what agents and networks are given
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Pixels: TypeAlias = NDArray[np.uint8]
