"""RLlib's PPO on a residual, `pip install "ray[rllib]==2.60.0" && python examples/libraries/rllib_ppo.py`.

The id is "module:id", so that every worker registers it; success becomes a metric of RLlib's.
"""

# pyright: reportMissingImports=false
from typing import Any

import numpy as np
import torch
import tyro
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module import RLModuleSpec
from setting import ID, KWARGS, STD, Args, Curve


class Module(DefaultPPOTorchRLModule):
    def setup(self) -> None:  # the untrained agent is the base policy
        super().setup()
        torch.nn.init.constant_(self.pi.log_std, np.log(STD))
        for parameter in self.pi.net.mlp[-1].parameters():
            torch.nn.init.zeros_(parameter)


def count_success(episode: Any, metrics_logger: Any, **_: Any) -> None:
    metrics_logger.log_value("success", float(episode.get_infos(-1)["success"]), window=100)


def main(args: Args) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("rllib_ppo", args)
    config = PPOConfig().environment("reinforcegen_envs:" + ID, env_config=KWARGS).debugging(seed=args.seed)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=8, gym_env_vectorize_mode="vector_entry_point")
    config.env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter())  # metres are small numbers
    config.training(train_batch_size_per_learner=1024, minibatch_size=128, num_epochs=10, use_kl_loss=False)
    config.training(lr=5e-4, gamma=0.98, lambda_=0.95, clip_param=0.2, vf_loss_coeff=0.5, grad_clip=0.5)
    model = {"fcnet_hiddens": [128, 128], "vf_share_layers": False, "free_log_std": True}
    config.rl_module(rl_module_spec=RLModuleSpec(Module, model_config=model)).callbacks(on_episode_end=count_success)
    algorithm = config.build_algo()
    module = algorithm.get_module()
    scale = next(c for c in algorithm.env_runner._env_to_module.connectors if isinstance(c, MeanStdFilter))

    @torch.no_grad()
    def policy(obs: np.ndarray) -> np.ndarray:
        seen = torch.tensor(scale._filters[None](obs, update=False), dtype=torch.float32)
        return module.forward_inference({"obs": seen[None]})["action_dist_inputs"][0, :7].numpy()

    steps = 0
    while steps < args.steps:
        result = algorithm.train()
        steps = int(result["num_env_steps_sampled_lifetime"])
        if curve.due(steps):
            print("success with exploration:", result["env_runners"]["success"])
            curve.measure(steps, policy)


if __name__ == "__main__":
    main(tyro.cli(Args))
