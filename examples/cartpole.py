"""CLSTM-PPO as an RLlib algorithm on Gymnasium's CartPole, which has no action mask.

python examples/cartpole.py [UPDATES]
"""

import sys

from trading.learning.ppo import CLSTMPPOConfig

algorithm = CLSTMPPOConfig().environment("CartPole-v1").training(lr=1e-3).build_algo()
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
    print(f"{algorithm.train()['env_runners']['episode_return_mean']:.1f} steps in balance")
algorithm.stop()
