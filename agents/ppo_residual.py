"""On-policy residual reinforcement learning: PPO whose untrained agent is the base policy.

The observation already holds the base policy's action; the environment adds the agent's action, scaled, to
it. The mean of the agent's action starts at zero everywhere, and the first iterations train the critic alone.

Exploration is in the residual's units, a tenth of the action range: a std of 0.37, which suits whole actions, hardly ever turns
a failure into a success there, and PPO learns from nothing else. On the model of an insertion in benchmarks/exploration.py
60,000 control steps bring 0.66 to 0.76 with a std of 0.37, and to 0.97 with 1, the range that the residual has.

    python -m reinforcegen_envs.agents.ppo_residual --env-id ReinforceGen/D2-Threading-Residual-v0 --stage grasp
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributions import Normal
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.agents.arguments import RunArgs, checked
from reinforcegen_envs.agents.common import Collector, make_training_envs, space_sizes, training_seeds
from reinforcegen_envs.agents.exploration import Noise
from reinforcegen_envs.agents.runs import Run, to_mlp
from reinforcegen_envs.arguments import Count, CountOrZero, Finite, Fraction, Limit, NotNegative, Positive
from reinforcegen_envs.policies.mlp import MLP
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

METRICS = (
    "losses/critic",
    "losses/actor",
    "losses/approx_kl",
    "losses/clip_fraction",
    "losses/explained_variance",
    "losses/std",
)
OBSERVATION_CLIP = 10.0


@dataclasses.dataclass
class Args(RunArgs):
    """Arguments of this trainer, after those of every trainer (agents/common.py)."""

    num_envs: Count = 24
    """environments stepped side by side"""
    total_steps: Count = 250_000
    """control steps of training, all environments together"""
    eval_every: CountOrZero = 50_000
    """control steps between evaluations; 0: only at the end"""

    # Algorithm
    num_steps: Count = 128
    """control steps of every environment in an iteration"""
    critic_only_iterations: CountOrZero = 2
    """first iterations, in which the actor stays the base policy"""
    gamma: Fraction = 0.99
    """discount of a control step"""
    gae_lambda: Fraction = 0.95
    """weight of longer returns in the advantage (generalised advantage estimation)"""
    epochs: Count = 5
    """passes over the data of an iteration"""
    minibatches: Count = 6
    """minibatches in an epoch"""
    clip: Positive = 0.2
    """how far an update may move the probability ratio of an action from 1"""
    target_kl: Limit = 0.03
    """the actor's epochs of an iteration end when the approximate KL divergence exceeds this"""
    initial_log_std: Finite = 0.0
    """log of the std of the agent's action before training: 1, cut to [-1, 1] and times the residual scale when executed"""
    noise_memory: Fraction = 0.0
    """correlation of the noise on actions between control steps; 0 is white. Probabilities are those of white noise either way"""
    entropy: NotNegative = 0.0
    """weight of the entropy bonus"""
    max_grad_norm: Limit = 0.5
    """largest gradient norm, of actor and critic each"""
    actor_lr: Positive = 3e-4
    """learning rate of the actor"""
    critic_lr: Positive = 1e-3
    """learning rate of the critic"""
    hidden: Count = 128
    """units in each of the two hidden layers of actor and critic"""

    def conflicts(self) -> list[str]:
        """What is wrong with arguments that are allowed one by one."""
        wrong, transitions = super().conflicts(), self.num_envs * self.num_steps
        if transitions < 2 * self.minibatches:
            wrong.append(f"minibatches is {self.minibatches}; each needs at least two of the {transitions} transitions")
        return wrong


# ----------------------------------------------------------------------------------------------------- agent


def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """Linear layer with orthogonal weights and no bias to start with."""
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


def make_network(inputs: int, outputs: int, hidden: int, last_gain: float) -> nn.Sequential:
    """Two hidden tanh layers; a ``last_gain`` of 0 makes the output zero."""
    first, second = layer(inputs, hidden, 2**0.5), layer(hidden, hidden, 2**0.5)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), layer(hidden, outputs, last_gain))


class Agent(nn.Module):
    """Actor, critic, and the running observation statistics, so that one state dict is the whole agent."""

    activation = "tanh"
    input_clip = OBSERVATION_CLIP

    def __init__(self, args: Args, obs_size: int, action_size: int):
        super().__init__()
        self.register_buffer("obs_mean", torch.zeros(obs_size, dtype=torch.float64))
        self.register_buffer("obs_var", torch.ones(obs_size, dtype=torch.float64))
        self.register_buffer("obs_count", torch.zeros((), dtype=torch.float64))
        self.obs_mean: torch.Tensor
        self.obs_var: torch.Tensor
        self.obs_count: torch.Tensor
        self.actor = make_network(obs_size, action_size, args.hidden, 0.0)
        self.critic = make_network(obs_size, 1, args.hidden, 1.0)
        self.log_std = nn.Parameter(torch.full((action_size,), args.initial_log_std))

    def update_statistics(self, obs: torch.Tensor) -> None:
        """Take (n, size) observations into the running mean and variance."""
        obs = obs.double()
        count, mean, var = len(obs), obs.mean(0), obs.var(0, correction=0)
        total = self.obs_count + count
        delta = mean - self.obs_mean
        old = self.obs_var * self.obs_count
        self.obs_var.copy_((old + var * count + delta.square() * self.obs_count * count / total) / total)
        self.obs_mean.add_(delta * count / total)
        self.obs_count.copy_(total)

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(size,) mean and std of the observations; constant entries have std 1."""
        std = self.obs_var.sqrt()
        return self.obs_mean.float(), torch.where(std < 1e-3, 1.0, std).float()

    def normalise(self, obs: torch.Tensor) -> torch.Tensor:
        """What the networks see."""
        mean, std = self.statistics()
        return ((obs - mean) / std).clamp(-self.input_clip, self.input_clip)

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        """(..., size) normalised observations to (...) values."""
        return self.critic(obs).squeeze(-1)

    def distribution(self, obs: torch.Tensor) -> Normal:
        """Distribution of the action before it is cut to [-1, 1], for normalised observations."""
        return Normal(self.actor(obs), self.log_std.exp(), validate_args=False)

    def mlp(self) -> MLP:
        """The mean action, for deployment; see `MLP`."""
        return to_mlp(self.actor, *self.statistics(), self.activation, "clip", self.input_clip)


# --------------------------------------------------------------------------------------------------- rollout


@dataclasses.dataclass
class Rollout:
    """What one iteration saw; every array is (num_steps, num_envs, ...)."""

    obs: torch.Tensor
    after: torch.Tensor  # the true next observation, also where an episode ended
    action: torch.Tensor
    log_prob: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    done: torch.Tensor


def rollout(
    args: Args, agent: Agent, rng: np.random.Generator, noise: Noise, collector: Collector, bar: tqdm
) -> tuple[Rollout, list[bool]]:
    """Run the policy, with noise, for one iteration.

    Args:
        args: number of steps and environments.
        agent: acts.
        rng: what noise is drawn from.
        noise: on actions.
        collector: steps the environments.
        bar: progress.

    Returns:
        The data, and whether each episode that ended succeeded.
    """
    steps, successes = [], []
    for _ in range(args.num_steps):
        with torch.no_grad():
            distribution = agent.distribution(agent.normalise(torch.from_numpy(collector.obs)))
            off = torch.from_numpy(noise.draw(rng).astype(np.float32))
            action = distribution.mean + distribution.stddev * off
            log_prob = distribution.log_prob(action).sum(-1)
        step = collector.step(action.clamp(-1.0, 1.0).numpy())
        steps.append((step.obs, step.after, action, log_prob, step.reward, step.terminated, step.done))
        successes += step.succeeded[step.done].tolist()
        bar.update(args.num_envs)
    columns = [torch.as_tensor(np.stack(column), dtype=torch.float32) for column in zip(*steps, strict=True)]
    return Rollout(*columns), successes


# -------------------------------------------------------------------------------------------------- learning


def make_optimiser(args: Args, agent: Agent) -> torch.optim.Optimizer:
    """Adam for actor and critic, each with its learning rate."""
    return torch.optim.Adam(
        [
            {"params": [*agent.actor.parameters(), agent.log_std], "lr": args.actor_lr},
            {"params": list(agent.critic.parameters()), "lr": args.critic_lr},
        ],
        eps=1e-5,
        fused=True,
    )


@torch.no_grad()
def advantages(args: Args, agent: Agent, data: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    """(num_steps, num_envs) advantages and the returns they add up to.

    The value after a step counts unless the episode terminated, so a truncation does not look like a failure;
    sums of later differences stop at any end.
    """
    values, values_after = agent.value(agent.normalise(data.obs)), agent.value(agent.normalise(data.after))
    differences = data.reward + args.gamma * (1.0 - data.terminated) * values_after - values
    result = torch.zeros_like(differences)
    later = torch.zeros(args.num_envs)
    for t in reversed(range(args.num_steps)):
        later = differences[t] + args.gamma * args.gae_lambda * (1.0 - data.done[t]) * later
        result[t] = later
    return result, result + values


def update(
    args: Args,
    agent: Agent,
    optimiser: torch.optim.Optimizer,
    rng: np.random.Generator,
    data: Rollout,
    with_actor: bool,
) -> dict[str, float]:
    """Train on the data of one iteration; return what to log."""
    advantage, target = (x.flatten() for x in advantages(args, agent, data))
    obs, action = agent.normalise(data.obs).flatten(0, 1), data.action.flatten(0, 1)
    old_log_prob = data.log_prob.flatten()
    actor_parameters = [*agent.actor.parameters(), agent.log_std]
    unexplained = (advantage.var() / target.var().clamp(min=1e-8)).item()
    losses: dict[str, float] = {"losses/explained_variance": 1.0 - unexplained}
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    for _ in range(args.epochs):
        order = torch.from_numpy(rng.permutation(len(target)))
        divergence = []
        for index in order.chunk(args.minibatches):
            optimiser.zero_grad()
            critic_loss = (agent.value(obs[index]) - target[index]).square().mean()
            loss = critic_loss
            if with_actor:
                distribution = agent.distribution(obs[index])
                log_ratio = distribution.log_prob(action[index]).sum(-1) - old_log_prob[index]
                ratio, a = log_ratio.exp(), advantage[index]
                gain = torch.minimum(ratio * a, ratio.clamp(1.0 - args.clip, 1.0 + args.clip) * a).mean()
                loss = critic_loss - gain - args.entropy * distribution.entropy().sum(-1).mean()
                divergence.append((ratio.detach() - 1.0 - log_ratio.detach()).mean().item())
                losses["losses/actor"] = -gain.item()
                losses["losses/clip_fraction"] = ((ratio - 1.0).abs() > args.clip).float().mean().item()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.critic.parameters(), args.max_grad_norm)
            if with_actor:
                nn.utils.clip_grad_norm_(actor_parameters, args.max_grad_norm)
            optimiser.step()
            losses["losses/critic"] = critic_loss.item()
        if with_actor:
            losses["losses/approx_kl"] = float(np.mean(divergence))
            with_actor = losses["losses/approx_kl"] <= args.target_kl  # the critic goes on
    return losses | {"losses/std": agent.log_std.detach().exp().mean().item()}


# ------------------------------------------------------------------------------------------------------ main


def train(
    args: Args,
    algorithm: str = "ppo_residual",
    kind: str = "residual",
    make_agent: Callable[[Args, ThreadVectorEnv], Agent] = lambda args, envs: Agent(args, *space_sizes(envs)),
) -> dict[str, Any]:
    """Train; return what result.json holds.

    Args:
        args: checked arguments.
        algorithm: the trainer's module name.
        kind: what the trained actor is, for its card.
        make_agent: arguments and training environments -> agent.

    Raises:
        InvalidArgument: the run that is to be resumed had other arguments.
        RunError: the run's folder holds another run, or no checkpoint that it can go on from.
    """
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    envs = make_training_envs(args)  # complain before the run's folder is made
    agent = make_agent(args, envs)
    run = Run(args, algorithm, METRICS, envs, kind)
    optimiser = make_optimiser(args, agent)
    noise = Noise(args.noise_memory, (args.num_envs, len(agent.log_std)))
    run.begin(rng, agent=agent, optimiser=optimiser, noise=noise)
    run.evaluate_base(agent.mlp())

    collector = Collector(envs, training_seeds(rng, args.num_envs))
    with run.bar() as bar:
        while run.unfinished:
            data, successes = rollout(args, agent, rng, noise, collector, bar)
            # The statistics must not change between acting and learning, or the probability ratio would not start
            # at 1. In the first iteration they may: its mean action is 0 whatever the observation.
            iteration = run.progress.updates
            if iteration == 0:
                agent.update_statistics(data.obs.flatten(0, 1))
            values = update(args, agent, optimiser, rng, data, with_actor=iteration >= args.critic_only_iterations)
            if iteration > 0:
                agent.update_statistics(data.obs.flatten(0, 1))
            run.progress.updates += 1
            run.advance(args.num_envs * args.num_steps, successes)
            values = run.report(agent.mlp(), values)
            bar.set_postfix(success=f"{values.get('charts/success', 0.0):.2f}")
            if run.due(args.checkpoint_every):
                run.checkpoint()
                run.export(agent.mlp())

    envs.close()
    return run.finish(agent.mlp())


def main(args: Args) -> dict[str, Any]:
    """Train a residual; see `train`.

    Raises:
        InvalidArgument: arguments that are not allowed, or not those of the run that is to be resumed.
        RunError: the run's folder holds another run, or no checkpoint that it can go on from.
    """
    return train(checked(args))


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --stage grasp --weights weights --pool grasp.npz")


if __name__ == "__main__":
    command()
