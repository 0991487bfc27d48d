"""Residual reinforcement learning from pixels: DrQ-v2 (Yarats et al. 2021) on top of a frozen base policy.

One convolutional encoder for actor and critics, which the critics' loss alone trains; random shifts of the pictures; n-step
returns; the smaller of two critics; noise that falls on a schedule. The agent sees both cameras, the robot's own state and the
base policy's action, and adds to that, in the world frame. Its last layer is zero, so that it begins as the base policy.

Where the paper starts from nothing, a residual has a policy to lose. So the noise is small (and in the units of the executed
action), targets stay within the returns there are, large residuals cost something, and half of a batch is of successful episodes.

The buffer of 45,000 observations takes 1.9 GB of memory at 84 pixels, and as much of a checkpoint (agents/pixel_replay.py).

    python -m reinforcegen_envs.agents.drqv2_residual --env-id ReinforceGen/D2-Threading-Residual-Insert-v0
"""

from __future__ import annotations

import copy
import dataclasses
import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.agents.arguments import checked
from reinforcegen_envs.agents.common import Collector, Transition, make_training_envs, training_seeds
from reinforcegen_envs.agents.pixel_arguments import PixelArgs
from reinforcegen_envs.agents.pixel_policy import (
    KIND,
    PixelPolicy,
    make_head,
    make_trunk,
    orthogonal,
)
from reinforcegen_envs.agents.pixel_replay import Pictures, PixelReplay
from reinforcegen_envs.agents.runs import Run
from reinforcegen_envs.arguments import Count, CountOrZero, Finite, Fraction, NotNegative, Positive, PositiveFraction

METRICS = (
    "losses/critic",
    "losses/actor",
    "losses/q",
    "losses/target",
    "losses/updates",
)
MANY = 20  # updates in one control step from which on they have a bar of their own


@dataclasses.dataclass
class Args(PixelArgs):
    """Arguments of this trainer, after those of every trainer (agents/common.py)."""

    env_id: str = "ReinforceGen/D2-Threading-Residual-v0"
    """environment id, of mode Residual"""
    weights: Path | None = None
    """folder of base weights and predictors; None: the shipped one. The trained actor stays in the run's folder"""

    # Algorithm
    warmup_steps: CountOrZero = 4_000
    """control steps of base policy and noise that fill the buffer and fix the statistics of the robot's state"""
    critic_only_updates: CountOrZero = 500
    """updates of encoder and critics alone, right after the warm-up"""
    updates_per_step: NotNegative = 0.25
    """updates per control step after the warm-up"""
    batch_size: Count = 128
    """transitions in a batch (the paper: 256)"""
    success_fraction: Fraction = 0.5
    """part of a batch drawn from successful episodes, as soon as there are any"""
    n_step: Count = 3
    """rewards summed before bootstrapping"""
    gamma: Fraction = 0.99
    """discount of a control step"""
    exploration_noise: NotNegative = 0.05
    """std of the noise on the *executed* action to begin with; the agent's own gets this over the residual scale"""
    final_noise: NotNegative = 0.02
    """std that it falls to, in the same units; as large as exploration_noise: no schedule"""
    noise_steps: Count = 40_000
    """control steps after the warm-up in which it falls, evenly"""
    noise_clip: NotNegative = 0.05
    """largest noise where the actor is learned from, in the same units"""
    shift: CountOrZero = 4
    """pixels by which a picture is shifted at most, each way"""
    strides: tuple[Count, ...] = (2, 2, 1, 1)
    """strides of the encoder's convolutions (the paper: 2 1 1 1, for which an update takes three times as long)"""
    features: Count = 50
    """numbers that actor and critics each make of what the encoder gives"""
    hidden: Count = 256
    """units in both hidden layers of actor and critics (the paper: 1024)"""
    learning_rate: Positive = 3e-4
    """of Adam, for the actor and for critics with encoder (the paper: 1e-4)"""
    residual_penalty: NotNegative = 0.1
    """weight of the residual's mean square in the actor's loss: where the base policy succeeds by itself nothing is to be
    gained but a little time, and whatever comes later was learned from how the base policy leaves things"""
    tau: PositiveFraction = 0.01
    """step of the target critics towards the online ones, every update"""
    q_low: Finite = 0.0
    """smallest return there is; targets are cut to it"""
    q_high: Finite = 1.0
    """largest return there is; with a sparse reward of 1 on success, 1"""

    def spanned(self) -> tuple[int, str]:
        """Control steps that a transition of the buffer spans, and the arguments that the smallest buffer follows from."""
        return self.n_step, "num_envs, n_step and batch_size"

    def conflicts(self) -> list[str]:
        """What is wrong with arguments that are allowed one by one."""
        wrong = super().conflicts()
        if self.q_low >= self.q_high:
            wrong.append(f"q_low is {self.q_low:g}; it must be below q_high, {self.q_high:g}")
        return wrong


# --------------------------------------------------------------------------------------------------- networks


class Critics(nn.Module):
    """Two critics on one trunk."""

    def __init__(self, inputs: int, numbers: int, actions: int, features: int, hidden: int):
        super().__init__()
        self.trunk = make_trunk(inputs, features)
        self.heads = nn.ModuleList(make_head(features + numbers + actions, hidden, 1) for _ in range(2))
        self.apply(orthogonal)

    def forward(self, encoded: torch.Tensor, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """What the encoder gives, normalised states and residuals to (2, n) values."""
        x = torch.cat([self.trunk(encoded), state, action], 1)
        return torch.stack([head(x)[:, 0] for head in self.heads])


class Agent(nn.Module):
    """The policy with the encoder, the critics and their targets: one state dict is the whole agent."""

    def __init__(self, args: Args, numbers: int, actions: int):
        super().__init__()
        self.policy = PixelPolicy(
            args.image_size, numbers, actions, args.strides, args.channels, args.features, args.hidden
        )
        self.critics = Critics(self.policy.encoded_size, numbers, actions, args.features, args.hidden)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)


# ---------------------------------------------------------------------------------------------------- rollout


def noise_std(args: Args, step: int) -> float:
    """Std of the noise on the executed action at a control step."""
    passed = min(1.0, max(0, step - args.warmup_steps) / args.noise_steps)
    return args.exploration_noise + passed * (args.final_noise - args.exploration_noise)


def rollout(
    args: Args, agent: Agent, rng: np.random.Generator, collector: Collector, physics: ThreadPoolExecutor, run: Run
) -> Future[Transition]:
    """Begin one control step of every environment, in the thread of ``physics``."""
    action = agent.policy.act(collector.obs)
    noise = rng.normal(0.0, noise_std(args, run.progress.step) / run.scale, action.shape)
    return physics.submit(collector.step, np.clip(action + noise, -1.0, 1.0).astype(np.float32))


# --------------------------------------------------------------------------------------------------- learning


def shifted(seen: torch.Tensor, most: int) -> torch.Tensor:
    """Every picture shifted by its own whole pixels, up to ``most`` each way; what moves in repeats the border.

    Args:
        seen: (..., size, size, 3).
        most: pixels.
    """
    pictures = seen.flatten(0, -4)
    count, size = pictures.shape[:2]
    rows, columns = (torch.arange(size) + torch.randint(-most, most + 1, (2, count, 1))).clamp_(0, size - 1)
    return pictures[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].view_as(seen)


def make_optimisers(args: Args, agent: Agent) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam for the critics with the encoder, and for the rest of the policy."""
    critic_parameters = [*agent.policy.encoder.parameters(), *agent.critics.parameters()]
    actor_parameters = [*agent.policy.trunk.parameters(), *agent.policy.head.parameters()]
    return (
        torch.optim.Adam(critic_parameters, args.learning_rate, fused=True),
        torch.optim.Adam(actor_parameters, args.learning_rate, fused=True),
    )


def update(
    args: Args,
    agent: Agent,
    optimisers: tuple[torch.optim.Optimizer, ...],
    batch: Pictures,
    std: float,
    scale: float,
    with_actor: bool,
) -> dict[str, torch.Tensor]:
    """One step of encoder and critics, of the actor if asked, and of the targets; returns what to log.

    Args:
        std: of the noise on the executed action.
        scale: what residuals are multiplied with.
    """
    critic_optimiser, actor_optimiser = optimisers
    policy, tensors = agent.policy, [torch.from_numpy(array) for array in batch]
    seen, state, action, returns, discount, seen_then, state_then = tensors
    state, state_then = policy.normalise(state), policy.normalise(state_then)

    def noisy(residual: torch.Tensor) -> torch.Tensor:
        noise = (torch.randn_like(residual) * std).clamp_(-args.noise_clip, args.noise_clip)
        return (residual + noise / scale).clamp(-1.0, 1.0)

    with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the processor knows it
        encoded = policy.encode(shifted(seen, args.shift))
        with torch.no_grad():
            encoded_then = policy.encode(shifted(seen_then, args.shift))
    with torch.no_grad():
        next_q = agent.target_critics(encoded_then, state_then, noisy(policy.action(encoded_then, state_then))).amin(0)
        target = (returns + discount * next_q).clamp_(args.q_low, args.q_high)
    q = agent.critics(encoded, state, action)
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
        encoded = encoded.detach()  # the actor's loss does not train the encoder
        agent.critics.requires_grad_(False)  # spares the gradients of the critics' weights
        residual = policy.action(encoded, state)
        value = agent.critics(encoded, state, noisy(residual)).amin(0).mean()
        actor_loss = args.residual_penalty * residual.square().mean() - value
        actor_optimiser.zero_grad()
        actor_loss.backward()
        actor_optimiser.step()
        agent.critics.requires_grad_(True)
        losses["losses/actor"] = actor_loss.detach()

    with torch.no_grad():
        for slow, fast in zip(agent.target_critics.parameters(), agent.critics.parameters(), strict=True):
            slow.lerp_(fast, args.tau)
    return losses


def learn(
    args: Args,
    agent: Agent,
    optimisers: tuple[torch.optim.Optimizer, ...],
    rng: np.random.Generator,
    replay: PixelReplay,
    run: Run,
) -> dict[str, torch.Tensor]:
    """Do all updates that are due by the end of the control step under way; returns what to log."""
    losses: dict[str, torch.Tensor] = {}
    progress = run.progress
    if progress.step < args.warmup_steps or replay.size < args.batch_size:
        return losses
    if progress.updates == 0:
        agent.policy.fix_statistics(replay.state[replay.ready])
    online = int(args.updates_per_step * (progress.step + args.num_envs - args.warmup_steps))
    due = args.critic_only_updates + online - progress.updates
    for _ in tqdm(range(due), "critics alone", leave=False, unit="update", disable=args.quiet or due < MANY):
        progress.updates += 1
        batch = replay.sample(rng, args.batch_size, args.success_fraction)
        with_actor = progress.updates > args.critic_only_updates
        losses |= update(args, agent, optimisers, batch, noise_std(args, progress.step), run.scale, with_actor)
    return losses


# ------------------------------------------------------------------------------------------------------- main


def main(args: Args) -> dict[str, Any]:
    """Train; return what result.json holds.

    Raises:
        InvalidArgument: arguments that are not allowed, or not those of the run that is to be resumed.
        RunError: the run's folder holds another run, or no checkpoint that it can go on from.
        RenderingError: no OpenGL library can be loaded.
    """
    args = checked(args)
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    envs = make_training_envs(args)  # complain before the run's folder is made
    run = Run(args, "drqv2_residual", METRICS, envs, KIND)
    spaces: Any = envs.single_observation_space
    numbers = spaces["proprio"].shape[0] + spaces["base_action"].shape[0]
    actions = math.prod(envs.single_action_space.shape or ())
    agent = Agent(args, numbers, actions)
    critic_optimiser, actor_optimiser = optimisers = make_optimisers(args, agent)
    replay = PixelReplay(args.num_envs, args.buffer_size, args.image_size, numbers, actions, args.n_step, args.gamma)
    run.begin(rng, agent=agent, critic_optimiser=critic_optimiser, actor_optimiser=actor_optimiser, replay=replay)
    run.evaluate_base(agent.policy)

    collector = Collector(envs, training_seeds(rng, args.num_envs))
    losses: dict[str, torch.Tensor] = {}
    with ThreadPoolExecutor(1) as physics, run.bar() as bar:
        while run.unfinished:
            pending = rollout(args, agent, rng, collector, physics, run)
            losses |= learn(args, agent, optimisers, rng, replay, run)  # while the physics runs, without the GIL
            step = pending.result()
            replay.add(step)
            run.advance(args.num_envs, step.succeeded[step.done].tolist())
            bar.update(args.num_envs)
            if run.due(args.log_every) or run.due(args.eval_every):
                values = {name: value.item() for name, value in losses.items()}
                values = run.report(agent.policy, {**values, "losses/updates": run.progress.updates})
                bar.set_postfix(success=f"{values.get('charts/success', 0.0):.2f}")
            if run.due(args.checkpoint_every):
                run.checkpoint()
                run.export(agent.policy)

    envs.close()
    return run.finish(agent.policy)


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --stage insert --pool insert.npz --termination sustained")


if __name__ == "__main__":
    command()
