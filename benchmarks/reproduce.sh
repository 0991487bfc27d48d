#!/usr/bin/env bash
# Written by `python benchmarks/write_results.py` from the tables in results/. Do not edit.
# One line a cell of RESULTS.md: run one of them, or all, from the root of the checkout. On the same machine every seed ends as
# it did; another processor rounds differently, and an episode or two of a hundred may end otherwise.
set -euo pipefail
export OMP_NUM_THREADS=1

# Starts as planned
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-Threading-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threading_d0_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-Threading-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threading_d0_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Threading-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threading_d1_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Threading-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threading_d1_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Threading-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threading_d1_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy base --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threading_d2_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy tuned --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threading_d2_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threading_d2_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy base --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threading_d2_basecamera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threading_d2_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threading_d2_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy tuned --perception camera --randomize-visuals --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threading_d2_camerarandomretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-Square-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d0_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-Square-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d0_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Square-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d1_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Square-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d1_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Square-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d2_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Square-Residual-v0 --policy tuned --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_square_d2_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Square-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d2_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Square-Residual-v0 --policy base --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d2_basecamera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Square-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_square_d2_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Square-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_square_d2_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Square-Residual-v0 --policy tuned --perception camera --randomize-visuals --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_square_d2_camerarandomretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-NutAssembly-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d0_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-NutAssembly-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d0_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-NutAssembly-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d0_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-NutAssembly-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d1_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-NutAssembly-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d1_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-NutAssembly-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d1_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-NutAssembly-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d2_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-NutAssembly-Residual-v0 --policy tuned --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_nutassembly_d2_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-NutAssembly-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d2_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-NutAssembly-Residual-v0 --policy base --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d2_basecamera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-NutAssembly-Residual-v0 --policy base --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_nutassembly_d2_baseretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-NutAssembly-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_nutassembly_d2_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-NutAssembly-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_nutassembly_d2_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-Coffee-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d0_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-Coffee-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d0_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-Coffee-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d0_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Coffee-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d1_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Coffee-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d1_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Coffee-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d1_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-Coffee-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d1_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Coffee-Residual-v0 --policy base --episodes 100 --seeds 2 --csv benchmarks/results/evaluate_coffee_d2_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Coffee-Residual-v0 --policy tuned --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_coffee_d2_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Coffee-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 2 --csv benchmarks/results/evaluate_coffee_d2_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Coffee-Residual-v0 --policy base --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffee_d2_basecamera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Coffee-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_coffee_d2_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Coffee-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_coffee_d2_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-ThreePieceAssembly-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threepieceassembly_d0_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-ThreePieceAssembly-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threepieceassembly_d0_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-ThreePieceAssembly-Residual-v0 --policy tuned --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threepieceassembly_d1_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-ThreePieceAssembly-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threepieceassembly_d1_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-ThreePieceAssembly-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threepieceassembly_d2_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-ThreePieceAssembly-Residual-v0 --policy tuned --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threepieceassembly_d2_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-ThreePieceAssembly-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threepieceassembly_d2_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-ThreePieceAssembly-Residual-v0 --policy base --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_threepieceassembly_d2_basecamera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-ThreePieceAssembly-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threepieceassembly_d2_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-ThreePieceAssembly-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_threepieceassembly_d2_cameraretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-CoffeePreparation-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d0_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D0-CoffeePreparation-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d0_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-CoffeePreparation-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d1_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D1-CoffeePreparation-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d1_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-CoffeePreparation-Residual-v0 --policy base --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d2_base-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-CoffeePreparation-Residual-v0 --policy tuned --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_coffeepreparation_d2_tuned-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-CoffeePreparation-Residual-v0 --policy tuned --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d2_camera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-CoffeePreparation-Residual-v0 --policy base --perception camera --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d2_basecamera-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-CoffeePreparation-Residual-v0 --policy base --retries 5 --episodes 100 --seeds 1 --csv benchmarks/results/evaluate_coffeepreparation_d2_baseretry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-CoffeePreparation-Residual-v0 --policy tuned --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_coffeepreparation_d2_retry-0.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-CoffeePreparation-Residual-v0 --policy tuned --perception camera --retries 5 --episodes 100 --seeds 3 --csv benchmarks/results/evaluate_coffeepreparation_d2_cameraretry-0.csv

# Starts off by 1 cm
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy base --episodes 100 --seeds 3 --pose-noise 0.01 0.0523599 --csv benchmarks/results/evaluate_threading_d2_base-0.01.csv
python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy tuned --episodes 100 --seeds 3 --pose-noise 0.01 0.0523599 --csv benchmarks/results/evaluate_threading_d2_tuned-0.01.csv

# Experiments of the paper
python benchmarks/paper/pose_noise.py
python benchmarks/paper/replanning.py
python benchmarks/paper/full_rl.py
python benchmarks/paper/ablation.py --imitation "runs/{task}/imitation" --foresight "runs/{task}/foresight"
python benchmarks/paper/transfer.py

# Everything else in results/
python benchmarks/pose_errors.py
python benchmarks/planner.py
python benchmarks/reach.py
python benchmarks/strict_implies_reference.py
python benchmarks/batch_policy.py
python benchmarks/speed.py
python benchmarks/speed_tasks.py

python benchmarks/write_results.py # RESULTS.md and this file
