"""TorchRL's PPO on a residual, `pip install torchrl && python examples/libraries/torchrl_ppo.py`.

One is `GymEnv(ID, **KWARGS)`; here eight run in our threads, and TorchRL resets them. Success is in the tensordict.
"""

# pyright: reportMissingImports=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
import gymnasium as gym
import numpy as np
import torch
import tyro
from setting import ID, KWARGS, STD, Args, Curve
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torchrl import collectors, data, envs, modules, objectives
from torchrl.modules import IndependentNormal as Normal
from torchrl.objectives.value import GAE

FRAMES = 1024  # control steps an iteration


def main(args: Args) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("torchrl_ppo", args)
    torch.manual_seed(args.seed)
    vector = envs.GymWrapper(gym.make_vec(ID, num_envs=8, autoreset_mode="Disabled", **KWARGS))
    success = data.Composite({"success": data.Unbounded((8,), dtype=torch.bool)}, shape=[8])
    vector.set_info_dict_reader(envs.default_info_dict_reader(["success"], success))
    vector.set_seed(args.seed)
    env = envs.TransformedEnv(vector, envs.ObservationNorm(in_keys=["observation"], standard_normal=True))
    env.transform.init_stats(250, reduce_dim=(0, 1), cat_dim=1)  # metres are small numbers
    layers = {"num_cells": [128, 128], "activation_class": torch.nn.Tanh}
    mean = modules.MLP(out_features=7, in_features=env.observation_spec["observation"].shape[-1], **layers)
    for parameter in mean[-1].parameters():  # the untrained agent is the base policy
        torch.nn.init.zeros_(parameter)
    noise = AddStateIndependentNormalScale(7, init_value=np.log(STD))
    network = TensorDictModule(torch.nn.Sequential(mean, noise), ["observation"], keys := ["loc", "scale"])
    actor = modules.ProbabilisticActor(network, keys, distribution_class=Normal, return_log_prob=True)
    critic = modules.ValueOperator(modules.MLP(out_features=1, in_features=mean[0].in_features, **layers))
    loss = objectives.ClipPPOLoss(actor, critic, entropy_bonus=False, critic_coeff=0.5, normalize_advantage=True)
    gae = GAE(gamma=0.98, lmbda=0.95, value_network=critic)
    optimiser = torch.optim.Adam(loss.parameters(), 5e-4, eps=1e-5)

    @torch.no_grad()
    def policy(obs: np.ndarray) -> np.ndarray:
        return mean((torch.tensor(obs) - env.transform.loc) / env.transform.scale).numpy()

    collector = collectors.Collector(env, actor, frames_per_batch=FRAMES)
    for steps, batch in zip(range(FRAMES, args.steps + FRAMES, FRAMES), collector, strict=False):
        rows = gae(batch).detach().reshape(-1)
        for index in (i for _ in range(10) for i in torch.randperm(FRAMES).split(128)):
            losses = loss(rows[index])
            optimiser.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"]).backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
            optimiser.step()
        if curve.due(steps):
            curve.measure(steps, policy)


if __name__ == "__main__":
    main(tyro.cli(Args))
