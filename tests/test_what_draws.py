"""Test files all of whose tests draw, where this process cannot."""

from pathlib import Path

import pytest
from drawing import does_not_draw, run_what_draws


@does_not_draw
@pytest.mark.parametrize("name", ["test_camera_perception", "test_perceive"])
def test_what_draws(name):
    run_what_draws(str(Path(__file__).with_name(f"{name}.py")))
