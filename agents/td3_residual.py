"""Off-policy residual reinforcement learning for sparse rewards: TD3 with n-step returns and base data.

The observation already holds the base policy's action; the environment adds the agent's action, scaled, to
it. So an agent whose last layer is zero *is* the base policy, and the replay buffer is first filled by
running just that. Half of each batch comes from successful episodes, the base's own and later ones.

    python -m reinforcegen_envs.agents.td3_residual --env-id ReinforceGen/D2-Threading-Residual-v0 --stage grasp
"""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.agents.arguments import RunArgs, checked
from reinforcegen_envs.agents.common import (
    Collector,
    Transition,
    input_statistics,
    make_training_envs,
    space_sizes,
    training_seeds,
)
from reinforcegen_envs.agents.exploration import Noise
from reinforcegen_envs.agents.replay import Experience
from reinforcegen_envs.agents.runs import Run, to_mlp
from reinforcegen_envs.arguments import Count, CountOrZero, Finite, Fraction, NotNegative, Positive, PositiveFraction
from reinforcegen_envs.policies.mlp import MLP

METRICS = (
    "losses/critic",
    "losses/actor",
    "losses/q",
    "losses/target",
    "losses/updates",
)
OBSERVATION_CLIP = 10.0
MANY = 100  # updates in one control step from which on they have a bar of their own


@dataclasses.dataclass
class Args(RunArgs):
    """Arguments of this trainer, after those of every trainer (agents/common.py)."""

    # Algorithm
    warmup_steps: CountOrZero = 10_000
    """control steps with zero residual that fill the buffer and fix the observation statistics"""
    critic_only_updates: CountOrZero = 2_000
    """updates of the critics alone, right after the warm-up"""
    updates_per_step: NotNegative = 0.25
    """updates per control step after the warm-up"""
    batch_size: Count = 256
    """transitions in a batch"""
    success_fraction: Fraction = 0.5
    """part of a batch drawn from successful episodes, as soon as there are any"""
    buffer_size: Count = 200_000
    """transitions kept, in each of the two buffers"""
    n_step: Count = 3
    """rewards summed before bootstrapping"""
    gamma: Fraction = 0.99
    """discount of a control step"""
    exploration_noise: NotNegative = 0.05
    """std of the noise on the *executed* action; the agent's own gets this over the residual scale"""
    noise_memory: Fraction = 0.0
    """correlation of that noise between control steps; 0 is white. Starts that are far off need about 0.95, and a residual scale
    of about 0.5"""
    quiet_envs: CountOrZero = 0
    """environments that act without that noise: where the policy would come to rest without it is learned from there"""
    target_noise: NotNegative = 0.02
    """std of the noise that smooths the target policy, in the same units"""
    target_noise_clip: NotNegative = 0.05
    """largest smoothing noise, in the same units"""
    critics: Count = 2
    """number of critics"""
    target_critics: Count = 2
    """critics, drawn at random for every update, whose smallest value is the target"""
    critic_hidden: Count = 128
    """units in each hidden layer of a critic"""
    actor_hidden: Count = 128
    """units in each hidden layer of the actor"""
    hidden_layers: Count = 2
    """hidden layers of actor and critics"""
    critic_lr: Positive = 6e-4
    """learning rate of the critics"""
    actor_lr: Positive = 3e-4
    """learning rate of the actor"""
    actor_every: Count = 2
    """critic updates per actor update"""
    residual_penalty: NotNegative = 0.1
    """weight of the residual's mean square in the actor's loss: where the base policy succeeds by itself nothing is to be
    gained but a little time, and whatever comes later was learned from how the base policy leaves things"""
    tau: PositiveFraction = 0.005
    """step of the target networks towards the online ones, every update"""
    q_low: Finite = 0.0
    """smallest return there is; targets are cut to it"""
    q_high: Finite = 1.0
    """largest return there is; with a sparse reward of 1 on success, 1"""

    def conflicts(self) -> list[str]:
        """What is wrong with arguments that are allowed one by one."""
        wrong = super().conflicts()
        if self.target_critics > self.critics:
            wrong.append(f"target_critics is {self.target_critics}; there are {self.critics} critics")
        if self.batch_size > self.buffer_size:
            wrong.append(f"batch_size is {self.batch_size}; it must be at most buffer_size, {self.buffer_size}")
        if self.q_low >= self.q_high:
            wrong.append(f"q_low is {self.q_low:g}; it must be below q_high, {self.q_high:g}")
        return wrong


# --------------------------------------------------------------------------------------------------- networks


class Critics(nn.Module):
    """Several critics as one: every layer is a single batched product over all of them.

    Layer normalisation (without which off-policy critics on few data overestimate) comes before the bias; its
    scale is left out, since the next layer's weights can take it over.
    """

    def __init__(self, count: int, inputs: int, hidden: int, layers: int):
        super().__init__()
        sizes = [inputs, *[hidden] * layers, 1]
        self.weights = nn.ParameterList(
            torch.empty(count, a, b).uniform_(-(a**-0.5), a**-0.5) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.biases = nn.ParameterList(torch.zeros(count, 1, b) for b in sizes[1:])

    def forward(self, obs: torch.Tensor, action: torch.Tensor, members: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, size) normalised observations and (batch, 7) residuals to (critics, batch) values.

        Args:
            obs: normalised observations.
            action: the agent's actions, in [-1, 1].
            members: indices of the critics to ask; None: all.
        """
        weights, biases = list(self.weights), list(self.biases)
        if members is not None:
            weights, biases = [w[members] for w in weights], [b[members] for b in biases]
        x = torch.cat([obs, action], 1).expand(len(weights[0]), -1, -1)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = F.layer_norm(torch.bmm(x, weight), weight.shape[-1:]).add_(bias).relu_()
        return torch.baddbmm(biases[-1], x, weights[-1]).squeeze(-1)


def make_actor(inputs: int, outputs: int, hidden: int, layers: int) -> nn.Sequential:
    """The residual before its tanh; zero for every observation until it is trained."""
    sizes = [inputs, *[hidden] * layers]
    modules: list[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        modules += [nn.Linear(a, b), nn.ReLU(inplace=True)]
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*modules, last)


class Agent(nn.Module):
    """Actor, critics, their targets, and the observation statistics: one state dict is the whole agent."""

    def __init__(self, args: Args, obs_size: int, action_size: int):
        super().__init__()
        self.obs_size, self.action_size = obs_size, action_size
        self.register_buffer("obs_mean", torch.zeros(obs_size))
        self.register_buffer("obs_std", torch.ones(obs_size))
        self.obs_mean: torch.Tensor
        self.obs_std: torch.Tensor
        self.actor = make_actor(obs_size, action_size, args.actor_hidden, args.hidden_layers)
        self.critics = Critics(args.critics, obs_size + action_size, args.critic_hidden, args.hidden_layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)

    def fix_statistics(self, obs: np.ndarray) -> None:
        """Normalise with mean and std of (n, size) observations from now on; constant entries keep std 1."""
        mean, std = input_statistics(obs)
        self.obs_mean.copy_(torch.from_numpy(mean))
        self.obs_std.copy_(torch.from_numpy(std))

    def normalise(self, obs: torch.Tensor) -> torch.Tensor:
        """What the networks see."""
        return ((obs - self.obs_mean) / self.obs_std).clamp_(-OBSERVATION_CLIP, OBSERVATION_CLIP)

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """(n, size) raw observations to (n, actions) actions in [-1, 1], without noise."""
        return torch.tanh(self.actor(self.normalise(torch.from_numpy(obs)))).numpy()

    def mlp(self) -> MLP:
        """The actor for deployment; see `MLP`."""
        return to_mlp(self.actor, self.obs_mean, self.obs_std, "relu", "tanh", OBSERVATION_CLIP)


# ---------------------------------------------------------------------------------------------------- rollout


def rollout(
    args: Args,
    agent: Agent,
    rng: np.random.Generator,
    noise: Noise,
    collector: Collector,
    physics: ThreadPoolExecutor,
    run: Run,
) -> Future[Transition]:
    """Begin one control step of every environment, in the thread of ``physics``."""
    action = np.zeros((args.num_envs, agent.action_size), np.float32)
    if run.progress.step >= args.warmup_steps:
        off = args.exploration_noise / run.scale * noise.draw(rng)
        action = np.clip(agent.act(collector.obs) + off, -1.0, 1.0).astype(np.float32)
    return physics.submit(collector.step, action)


# --------------------------------------------------------------------------------------------------- learning


def make_optimisers(args: Args, agent: Agent) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam for the critics and for the actor; one fused call each, which matters for networks this small."""
    return (
        torch.optim.Adam(agent.critics.parameters(), args.critic_lr, fused=True),
        torch.optim.Adam(agent.actor.parameters(), args.actor_lr, fused=True),
    )


def follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the target's parameters a part ``tau`` of the way, in one call."""
    foreach_lerp_ = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage] (torch.optim uses it too)
    foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


def update(
    args: Args,
    agent: Agent,
    optimisers: tuple[torch.optim.Optimizer, ...],
    rows: torch.Tensor,
    scale: float,
    with_actor: bool,
) -> dict[str, torch.Tensor]:
    """One step of the critics, of the actor if asked, and of the targets; returns what to log."""
    critic_optimiser, actor_optimiser = optimisers
    widths = [agent.obs_size, agent.action_size, 1, 1, agent.obs_size]
    obs, action, returns, discount, after = rows.split(widths, 1)
    obs, after = agent.normalise(obs), agent.normalise(after)

    with torch.no_grad():
        clip = args.target_noise_clip / scale
        noise = (torch.randn_like(action) * (args.target_noise / scale)).clamp_(-clip, clip)
        next_action = torch.tanh(agent.target_actor(after)).add_(noise).clamp_(-1.0, 1.0)
        members = torch.randperm(args.critics)[: args.target_critics]
        next_q = agent.target_critics(after, next_action, members).amin(0)
        target = (returns[:, 0] + discount[:, 0] * next_q).clamp_(args.q_low, args.q_high)
    q = agent.critics(obs, action)
    critic_loss = (q - target).square().mean(1).sum()
    critic_optimiser.zero_grad()
    critic_loss.backward()
    critic_optimiser.step()
    losses = {
        "losses/critic": critic_loss.detach(),
        "losses/q": q.detach().mean(),
        "losses/target": target.mean(),
    }

    if with_actor:
        agent.critics.requires_grad_(False)  # spares the gradients of the critics' weights
        residual = torch.tanh(agent.actor(obs))
        actor_loss = args.residual_penalty * residual.square().mean() - agent.critics(obs, residual).mean()
        actor_optimiser.zero_grad()
        actor_loss.backward()
        actor_optimiser.step()
        agent.critics.requires_grad_(True)
        losses["losses/actor"] = actor_loss.detach()

    with torch.no_grad():
        follow(agent.target_critics, agent.critics, args.tau)
        if with_actor:
            follow(agent.target_actor, agent.actor, args.tau)
    return losses


def learn(
    args: Args,
    agent: Agent,
    optimisers: tuple[torch.optim.Optimizer, ...],
    rng: np.random.Generator,
    experience: Experience,
    run: Run,
) -> dict[str, torch.Tensor]:
    """Do all updates that are due by the end of the control step under way; returns what to log."""
    losses: dict[str, torch.Tensor] = {}
    replay, progress = experience.replay, run.progress
    if progress.step < args.warmup_steps or replay.size < args.batch_size:
        return losses
    if progress.updates == 0:
        agent.fix_statistics(replay.rows[: replay.size, : agent.obs_size])
    online = int(args.updates_per_step * (progress.step + args.num_envs - args.warmup_steps))
    due = args.critic_only_updates + online - progress.updates
    for _ in tqdm(range(due), "critics alone", leave=False, unit="update", disable=args.quiet or due < MANY):
        progress.updates += 1
        with_actor = progress.updates > args.critic_only_updates and progress.updates % args.actor_every == 0
        rows = torch.from_numpy(experience.sample(rng, args.batch_size, args.success_fraction))
        losses |= update(args, agent, optimisers, rows, run.scale, with_actor)
    return losses


# ------------------------------------------------------------------------------------------------------- main


def main(args: Args) -> dict[str, Any]:
    """Train; return what result.json holds.

    Raises:
        InvalidArgument: arguments that are not allowed, or not those of the run that is to be resumed.
        RunError: the run's folder holds another run, or no checkpoint that it can go on from.
    """
    args = checked(args)
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    envs = make_training_envs(args)  # complain before the run's folder is made
    run = Run(args, "td3_residual", METRICS, envs)
    obs_size, action_size = space_sizes(envs)
    agent = Agent(args, obs_size, action_size)
    critic_optimiser, actor_optimiser = optimisers = make_optimisers(args, agent)
    experience = Experience(args.num_envs, args.buffer_size, 2 * obs_size + action_size + 2, args.n_step, args.gamma)
    noise = Noise(args.noise_memory, (args.num_envs, action_size), args.quiet_envs)
    run.begin(
        rng,
        agent=agent,
        critic_optimiser=critic_optimiser,
        actor_optimiser=actor_optimiser,
        experience=experience,
        noise=noise,
    )
    run.evaluate_base(agent.mlp())

    collector = Collector(envs, training_seeds(rng, args.num_envs))
    losses: dict[str, torch.Tensor] = {}
    with ThreadPoolExecutor(1) as physics, run.bar() as bar:
        while run.unfinished:
            pending = rollout(args, agent, rng, noise, collector, physics, run)
            losses |= learn(args, agent, optimisers, rng, experience, run)  # while the physics runs, without the GIL
            step = pending.result()
            experience.add(step)
            run.advance(args.num_envs, step.succeeded[step.done].tolist())
            bar.update(args.num_envs)
            if run.due(args.log_every) or run.due(args.eval_every):
                values = {name: value.item() for name, value in losses.items()}
                values = run.report(agent.mlp(), {**values, "losses/updates": run.progress.updates})
                bar.set_postfix(success=f"{values.get('charts/success', 0.0):.2f}")
            if run.due(args.checkpoint_every):
                run.checkpoint()
                run.export(agent.mlp())

    envs.close()
    return run.finish(agent.mlp())


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --stage grasp --weights weights --pool grasp.npz")


if __name__ == "__main__":
    command()
