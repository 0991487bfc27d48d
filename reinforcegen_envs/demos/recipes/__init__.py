"""What the scripted teleoperator does, task by task: keyframes in object frames, with a style drawn anew for each demo."""

from collections.abc import Callable

import numpy as np

from reinforcegen_envs.demos.recipes.coffee import coffee_recipe
from reinforcegen_envs.demos.recipes.coffee_preparation import coffee_preparation_recipe
from reinforcegen_envs.demos.recipes.keyframe import CLOSE, OPEN, Keyframe
from reinforcegen_envs.demos.recipes.nuts import nut_assembly_recipe, square_recipe
from reinforcegen_envs.demos.recipes.threading import threading_recipe
from reinforcegen_envs.demos.recipes.three_piece_assembly import three_piece_assembly_recipe

RECIPES: dict[str, Callable[[np.random.Generator], list[Keyframe]]] = {
    "Threading": threading_recipe,
    "Square": square_recipe,
    "NutAssembly": nut_assembly_recipe,
    "Coffee": coffee_recipe,
    "ThreePieceAssembly": three_piece_assembly_recipe,
    "CoffeePreparation": coffee_preparation_recipe,
}

__all__ = ["CLOSE", "OPEN", "RECIPES", "Keyframe"]
