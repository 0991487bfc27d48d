"""skrl's PPO on a residual, in a vector environment of ours.

    pip install skrl
    python examples/libraries/skrl_ppo.py

skrl takes every step of a vector environment for one of an episode: autoreset mode "SameStep" is the one that it fits.
"""

# pyright: reportMissingImports=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import gymnasium as gym
import numpy as np
import torch
import tyro
from setting import ID, KWARGS, STD, Args, Curve
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.resources.preprocessors.torch import RunningStandardScaler
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from skrl.utils.model_instantiators.torch import deterministic_model, gaussian_model

ENVS, ROLLOUT = 8, 128


def main(args: Args) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("skrl_ppo", args)
    set_seed(args.seed)
    envs = wrap_env(gym.make_vec(ID, num_envs=ENVS, autoreset_mode="SameStep", **KWARGS))
    spaces = {"observation_space": envs.observation_space, "action_space": envs.action_space, "device": "cpu"}
    layers = [{"name": "net", "input": "OBSERVATIONS", "layers": [128, 128], "activations": "tanh"}]
    actor = gaussian_model(**spaces, network=layers, output="ACTIONS", initial_log_std=np.log(STD))
    actor.init_state_dict(role="policy")  # makes its layers
    for parameter in actor.net_container[-1].parameters():  # the untrained agent is the base policy
        torch.nn.init.zeros_(parameter)
    models = {"policy": actor, "value": deterministic_model(**spaces, network=layers, output="ONE")}
    cfg = PPO_CFG(
        rollouts=ROLLOUT, learning_epochs=10, mini_batches=8, learning_rate=5e-4, discount_factor=0.98, value_loss_scale=0.5,
        observation_preprocessor=RunningStandardScaler,  # metres are small numbers
        observation_preprocessor_kwargs={"size": envs.observation_space, "device": "cpu"},
    )  # fmt: skip
    cfg.experiment.write_interval = cfg.experiment.checkpoint_interval = 0
    agent = PPO(models=models, memory=RandomMemory(memory_size=ROLLOUT, num_envs=ENVS), cfg=cfg, **spaces)
    settings = {"timesteps": ROLLOUT, "headless": True, "disable_progressbar": True}
    trainer = SequentialTrainer(env=envs, agents=agent, cfg=settings)

    def policy(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return agent.act(torch.tensor(obs)[None], None, timestep=0, timesteps=0)[1]["mean_actions"][0].numpy()

    for steps in range(ENVS * ROLLOUT, args.steps + ENVS * ROLLOUT, ENVS * ROLLOUT):
        trainer.train()  # one rollout and one update
        if curve.due(steps):
            curve.measure(steps, policy)


if __name__ == "__main__":
    main(tyro.cli(Args))
