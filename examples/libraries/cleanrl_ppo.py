"""PPO as one loop in CleanRL's style, `python examples/libraries/cleanrl_ppo.py`; only the id is of this package.

Since Gymnasium 1: autoreset mode "SameStep", where no step is a mere reset, and infos["final_obs"] of episodes cut short.
"""

import gymnasium as gym
import numpy as np
import torch
import tyro
from setting import ID, KWARGS, STD, Args, Curve
from torch import nn
from torch.distributions import Normal

ENVS, STEPS, EPOCHS, BATCH, GAMMA, LAMBDA, CLIP = 8, 128, 10, 128, 0.98, 0.95, 0.2


def main(args: Args) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("cleanrl_ppo", args)
    torch.manual_seed(args.seed)
    envs = gym.make_vec(ID, num_envs=ENVS, autoreset_mode="SameStep", **KWARGS)
    obs = torch.tensor(envs.reset(seed=args.seed)[0])
    size, log_std = obs.shape[1], nn.Parameter(torch.full((7,), np.log(STD)))
    norm = nn.BatchNorm1d(size, affine=False).eval()  # metres are small numbers; fixed after the first rollout
    hidden = [[nn.Linear(size, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh()] for _ in range(2)]
    actor, critic = (nn.Sequential(norm, *hidden[i], nn.Linear(128, outputs)) for i, outputs in enumerate((7, 1)))
    for parameter in actor[-1].parameters():  # the untrained agent is the base policy
        nn.init.zeros_(parameter)
    optimiser = torch.optim.Adam(weights := [*actor.parameters(), *critic.parameters(), log_std], 5e-4, eps=1e-5)
    for step in range(STEPS * ENVS, args.steps + STEPS * ENVS, STEPS * ENVS):
        rows = []
        for _ in range(STEPS):
            with torch.no_grad():
                action = Normal(actor(obs), log_std.exp()).sample()
            after, reward, ended, cut, infos = envs.step(action.clamp(-1, 1).numpy())
            final = [infos["final_obs"][i] if done else after[i] for i, done in enumerate(ended | cut)]
            rows.append([torch.tensor(x).float() for x in (reward, np.stack(final), ended, ended | cut, obs, action)])
            obs = torch.tensor(after)
        reward, final, ended, done, seen, action = (torch.cat(column) for column in zip(*rows, strict=True))
        if step == STEPS * ENVS:
            norm.running_mean, norm.running_var = seen.mean(0), seen.var(0)
        with torch.no_grad():
            value, old = critic(seen)[:, 0], Normal(actor(seen), log_std.exp()).log_prob(action).sum(1)
            gain, later = reward + GAMMA * (1 - ended) * critic(final)[:, 0] - value, torch.zeros(ENVS)
            for error, d in zip(reversed(gain.split(ENVS)), reversed(done.split(ENVS)), strict=True):
                later = error.add_(GAMMA * LAMBDA * (1 - d) * later)  # one-step errors become advantages, in place
        for i in (i for _ in range(EPOCHS) for i in torch.randperm(len(seen)).split(BATCH)):
            ratio = (Normal(actor(seen[i]), log_std.exp()).log_prob(action[i]).sum(1) - old[i]).exp()
            a = (gain[i] - gain[i].mean()) / (gain[i].std() + 1e-8)
            critic_loss = 0.5 * (critic(seen[i])[:, 0] - (gain + value)[i]).square().mean()
            optimiser.zero_grad()
            (critic_loss - torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a).mean()).backward()
            nn.utils.clip_grad_norm_(weights, 0.5)
            optimiser.step()
        if curve.due(step):
            curve.measure(step, lambda o: actor(torch.tensor(o)[None])[0].clamp(-1, 1).detach().numpy())


if __name__ == "__main__":
    main(tyro.cli(Args))
