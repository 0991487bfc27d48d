"""robomimic's own scripts on this package's files and environments, and its policies as base policies.

    python -m reinforcegen_envs.robomimic prepare --data d2.hdf5 --out bc.hdf5
    python -m reinforcegen_envs.robomimic train --dataset bc.hdf5            # robomimic/scripts/train.py
    python -m reinforcegen_envs.robomimic playback --dataset bc.hdf5 --n 1   # .../playback_dataset.py
    python -m reinforcegen_envs.robomimic rollout --agent model.pth          # .../run_trained_agent.py
    python -m reinforcegen_envs.robomimic evaluate --agent model.pth         # as base policy, as deployed

``prepare`` makes a file of the actions and observations that `agents.bc` learns from, too (`prepared`).

robomimic's scripts know three kinds of environments and have no place for another one. So they are started here, where the
kind that stands in this package's files (2, Gym) means `GymnasiumEnv`; everything else is theirs, arguments too. ``train`` takes
the shipped configuration (demos/robomimic_bc.json), whose runs go to runs/robomimic, unless --config or --algo names another.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import robomimic.utils.env_utils as env_utils  # pyright: ignore[reportMissingImports]
import robomimic.utils.file_utils as file_utils  # pyright: ignore[reportMissingImports]
import robomimic.utils.obs_utils as obs_utils  # pyright: ignore[reportMissingImports]
from robomimic.envs.env_base import EnvBase, EnvType  # pyright: ignore[reportMissingImports]

from reinforcegen_envs import cli, evaluation
from reinforcegen_envs.agents.bc import without_dwell
from reinforcegen_envs.arguments import CountOrZero, checked
from reinforcegen_envs.demos import hdf5
from reinforcegen_envs.demos.hdf5 import Demo
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation.summary import report
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.observations import ObservationLayout, to_reference
from reinforcegen_envs.policies.policy import Indices, MemorylessPolicy
from reinforcegen_envs.policies.skill import stage_features
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.reference import ReferenceActions

SCRIPTS = {"train": "train", "playback": "playback_dataset", "rollout": "run_trained_agent"}
CONFIG = Path(hdf5.__file__).with_name("robomimic_bc.json")
KEY = "state"  # of the observation, in files and here
FEATURES = "features"  # of what `agents.bc` sees of it, in prepared files and here
CAMERA = "front"  # what robomimic calls the one view that there is


class Features:
    """What a stage's own networks see of observations; the other numbers are zero, so that nothing tells where the scene is.

    Args:
        name: an id, or another name of an environment of the task.
    """

    def __init__(self, name: str):
        task = TASKS[hdf5.task_name(name)]
        layout = ObservationLayout.of(task)
        self._stage = layout.slices["stage"]
        self._mask = np.zeros((len(task.stages), layout.size), np.float32)
        self._mask[:, self._stage] = 1.0
        for index in range(len(task.stages)):
            self._mask[index, stage_features(layout, task, index)] = 1.0

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Observations (..., size) -> the same, float32."""
        stages = np.argmax(observations[..., self._stage], axis=-1)
        return np.asarray(observations * self._mask[stages], np.float32)


class GymnasiumEnv(EnvBase):
    """An environment of this package as robomimic wants it.

    Args:
        env_name: an id.
        render, render_offscreen: whether pictures are wanted.
        actions: the frame in which actions are, "world" or "reference" (`ReferenceActions`).
        kwargs: of the environment.
    """

    def __init__(
        self,
        env_name: str,
        render: bool = False,
        render_offscreen: bool = False,
        use_image_obs: bool = False,
        postprocess_visual_obs: bool = True,
        actions: str = "world",
        **kwargs: Any,
    ):
        self._name, self._kwargs = env_name, {"actions": actions, **kwargs}
        mode = "human" if render else "rgb_array" if render_offscreen else None
        self.env = gym.make(env_name, disable_env_checker=True, render_mode=mode, **kwargs)
        if actions == "reference":
            self.env = ReferenceActions(self.env)
        self._features = Features(env_name)
        self._observation: np.ndarray | None = None
        self._reward, self._done, self._success = 0.0, False, False

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]:
        """One step. After the end nothing moves any more: robomimic plays files to their last row."""
        if self._done:
            return self.get_observation(), 0.0, True, {}
        self._observation, reward, terminated, truncated, info = self.env.step(action)
        self._reward, self._done = float(reward), terminated or truncated
        self._success = bool(info.get("success", False))
        return self.get_observation(), self._reward, self._done, info

    def reset(self) -> dict[str, np.ndarray]:
        """A new episode; the generator goes on."""
        self._observation, info = self.env.reset()
        self._reward, self._done, self._success = 0.0, bool(info.get("failure")), False
        return self.get_observation()

    def reset_to(self, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Go to a state of `get_state`, or to a row of a file's ``states`` (time, qpos, qvel), in the stage that is on."""
        core = self.env.unwrapped
        if "snapshot" in state:
            core.set_state(state["snapshot"])  # type: ignore[attr-defined]
        else:
            flat, nq = np.asarray(state["states"]), core.model.nq  # type: ignore[attr-defined]
            data = core.data  # type: ignore[attr-defined]
            data.time, data.qpos[:], data.qvel[:] = flat[0], flat[1 : 1 + nq], flat[1 + nq :]
            core.refresh()  # type: ignore[attr-defined]
        self._reward, self._done, self._success = 0.0, False, False
        self._observation = self.env.get_wrapper_attr("observe")()
        return self.get_observation()

    def render(
        self, mode: str = "human", height: int | None = None, width: int | None = None, camera_name: str | None = None
    ) -> Any:
        """The task's view; size and camera are the environment's own."""
        return self.env.render()

    def get_observation(self) -> dict[str, np.ndarray]:
        """The last observation, under the names that it has in files."""
        assert self._observation is not None
        state = np.array(self._observation, np.float32)
        return {KEY: state, FEATURES: self._features(state)}

    def get_state(self) -> dict[str, Any]:
        """A row as in files, and the whole snapshot."""
        core = self.env.unwrapped
        data = core.data  # type: ignore[attr-defined]
        flat = np.concatenate([[data.time], data.qpos, data.qvel])
        return {"states": flat, "snapshot": core.get_state()}  # type: ignore[attr-defined]

    def get_reward(self) -> float:
        """Of the last step."""
        return self._reward

    def get_goal(self) -> Any:
        """There is none."""
        raise NotImplementedError

    def set_goal(self, **kwargs: Any) -> None:
        """There is none."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Whether the episode has ended, or its first connect failed."""
        return self._done

    def is_success(self) -> dict[str, bool]:
        """Strict success."""
        return {"task": self._success}

    @property
    def action_dimension(self) -> int:
        """Numbers of an action."""
        return int(np.prod(self.env.action_space.shape))  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """As a file name, which is what robomimic makes of it."""
        return self._name.replace("/", "-")

    @property
    def type(self) -> int:
        """Gym's."""
        return EnvType.GYM_TYPE

    @property
    def version(self) -> str:
        """The id's."""
        return self._name.rpartition("-v")[2]

    def serialize(self) -> dict[str, Any]:
        """What makes this environment again."""
        return {
            "env_name": self._name, "type": self.type, "env_version": self.version, "env_kwargs": deepcopy(self._kwargs)
        }  # fmt: skip

    @classmethod
    def create_for_data_processing(
        cls,
        env_name: str,
        camera_names: Any,
        camera_height: Any,
        camera_width: Any,
        reward_shaping: bool,
        **kwargs: Any,
    ) -> GymnasiumEnv:
        """An environment for robomimic's scripts that work on files."""
        obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": [KEY], "rgb": []}})
        return cls(env_name, **kwargs)

    @property
    def rollout_exceptions(self) -> tuple[type[BaseException], ...]:
        """None: whatever goes wrong is a defect."""
        return ()


class CheckpointPolicy(MemorylessPolicy):
    """A policy that robomimic has trained on this package's files, e.g. as ``base_policy``, in the frame of the file's actions.

    Loading a checkpoint of robomimic runs what is in it: take none from strangers.

    Args:
        path: a checkpoint of robomimic's train script.

    Raises:
        InvalidArgument: there is no such file, or the policy is recurrent, or sees other observations than the state.
    """

    def __init__(self, path: Path | str):
        if not Path(path).is_file():
            raise InvalidArgument(f"no checkpoint {path}; train one with: python -m {__name__} train")
        self._policy, checkpoint = file_utils.policy_from_checkpoint(ckpt_path=str(path), verbose=False)
        config = json.loads(checkpoint["config"])
        seen = [key for keys in config["observation"]["modalities"]["obs"].values() for key in keys]
        algo = config["algo"]
        if not {*seen} <= {KEY, FEATURES} or any(algo.get(kind, {}).get("enabled") for kind in ("rnn", "transformer")):
            raise InvalidArgument(
                f"{path} must be a policy without memory that sees {KEY} or {FEATURES}; it sees {seen}"
            )
        origin = checkpoint["env_metadata"]
        self._features = Features(origin["env_name"])
        if origin["env_kwargs"].get("actions") == "reference":
            self.frame = "reference"
        self._policy.start_episode()

    def act(self, observations: np.ndarray, env_indices: Indices | None = None) -> np.ndarray:
        """The policy's action for each row, (n, 7)."""
        states = np.asarray(observations, np.float32)
        seen = zip(states, self._features(states), strict=True)
        return np.array([self._policy({KEY: state, FEATURES: features}) for state, features in seen], np.float64)


def prepared(demo: Demo, layout: ObservationLayout, features: Features) -> Demo:
    """A generated demonstration with the actions that are easiest to learn, (T, 7) in [-1, 1], and with `Features` beside states.

    Actions are without noise, in the reference object's frame as the observations are, and close the fingers as soon as the hand
    is there.
    """
    obs, stage = demo.obs[KEY], demo.datagen_info["stage"]
    frames = obs[:, layout.slices["ref_rot6d_world"]].astype(np.float64)
    labels = demo.datagen_info["label_action"].astype(np.float64)
    actions = np.array([to_reference(action, frame) for action, frame in zip(labels, frames, strict=True)])
    for index in np.unique(stage):
        rows = stage == index
        actions[rows, 6] = without_dwell(actions[rows, 6], obs[rows][:, layout.slices["eef_pos_in_ref"]])
    return replace(
        demo,
        actions=np.clip(actions, -1.0, 1.0).astype(np.float32),
        obs={**demo.obs, FEATURES: features(obs)},
        next_obs={**demo.next_obs, FEATURES: features(demo.next_obs[KEY])},
    )


@dataclass
class PrepareArgs:
    """Write a generated file whose column ``actions`` holds what is easiest to learn."""

    data: Path
    """a generated file"""
    out: Path
    """file to write"""


def prepare(args: PrepareArgs) -> None:
    """Write the file.

    Raises:
        DemoFileError: the file is unusable.
    """
    attrs = hdf5.read_attrs(args.data)
    attrs["actions"] = (
        "in the frame of the stage's reference object, without noise; fingers close as soon as the hand is there"
    )
    env_args = attrs["env_args"]
    env_args["env_kwargs"] = {**env_args["env_kwargs"], "actions": "reference"}
    layout = ObservationLayout.of(TASKS[hdf5.task_name(env_args["env_name"])])
    features = Features(env_args["env_name"])
    demos = (prepared(demo, layout, features) for demo in hdf5.iter_demos(args.data))
    hdf5.write_demos(args.out, demos, env_args, attrs)


@dataclass
class Args:
    """Evaluate a checkpoint of robomimic as the base policy, with a residual of zero."""

    agent: Path
    """checkpoint"""
    task: str = "Threading"
    """task name"""
    variant: str = "D2"
    """reset range"""
    episodes: int = 100
    """episodes"""
    first_seed: CountOrZero = EVALUATION_SEED
    """seed of the first one"""
    termination: str = "predictor"
    """"predictor" (learned), "sustained" or "predicate" (simulator truth) ends skills"""


def evaluate(args: Args) -> dict[str, Any]:
    """Play, and print success with its interval."""
    args = checked(args)
    settings = evaluation.Args(
        env_id=f"ReinforceGen/{args.variant}-{args.task}-Residual-v0", policy="base", termination=args.termination,
        first_seed=args.first_seed,
    )  # fmt: skip
    env, policy = evaluation.make(settings, base_policy=CheckpointPolicy(args.agent))
    stages = [stage.name for stage in env.unwrapped.task.stages]  # type: ignore[attr-defined]
    first = settings.first_seed
    summary = evaluation.summarise([evaluation.play(env, policy, first + i) for i in range(args.episodes)], stages)
    print(report(f"{args.agent} as base policy of {settings.env_id}", summary))
    return summary


def own_config(folder: Path) -> Path:
    """The shipped configuration as a file in a folder where its runs go: robomimic takes no folder on the command line."""
    config = json.loads(CONFIG.read_text())
    config["train"]["output_dir"] = str(folder.absolute())
    with atomic_path(folder / CONFIG.name) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n")
    return folder / CONFIG.name


def run_script(name: str) -> None:
    """Run one of robomimic's scripts on the command line's arguments."""
    env_utils.get_env_class = lambda env_meta=None, env_type=None, env=None: GymnasiumEnv
    if name == "train" and not {"--config", "--algo"} & set(sys.argv):
        sys.argv += ["--config", str(own_config(Path("runs/robomimic")))]
    if name == "playback" and "--render_image_names" not in sys.argv:
        sys.argv += ["--render_image_names", CAMERA]
    runpy.run_module(f"robomimic.scripts.{SCRIPTS[name]}", run_name="__main__")


def command() -> None:
    """The command line."""
    words = (*SCRIPTS, "prepare", "evaluate")
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    with cli.one_line_errors():
        if name not in words:
            raise InvalidArgument(f"{name!r} is none of {', '.join(words)}; name one, and then its arguments")
        if name == "prepare":
            cli.run(prepare, PrepareArgs, example="--data d2.hdf5 --out bc.hdf5")
        elif name == "evaluate":
            cli.run(evaluate, Args, example="--agent model.pth --task Threading")
        else:
            run_script(name)


if __name__ == "__main__":
    command()
