# %% [markdown]
# # 4. The long way: a reward model, then PPO
#
# RLHF as it was before DPO: (1) fit a reward model to the pairs by Bradley–Terry, (2) let the policy write, score what it writes, and raise
# the score less β·KL by PPO. Twenty details make it work or fail; `docs/ppo.md` numbers them. The pieces that matter most, by hand:

# %%
import numpy as np

# %% [markdown]
# ## Exercise 4.1: the reward model's loss
#
# `reward_loss(chosen_scores, rejected_scores)`: the mean of −log σ(r_w − r_l). It must stay finite for scores of ±1000.

# %% tags=["exercise"]
def reward_loss(chosen_scores, rejected_scores):
    ...

# %% tags=["answer"]
def reward_loss(chosen_scores, rejected_scores):
    return float(np.logaddexp(0, np.asarray(rejected_scores) - np.asarray(chosen_scores)).mean())

# %%
print(reward_loss([0.0], [0.0]), "is ln 2: a model that knows nothing")
print(reward_loss([1000.0], [-1000.0]), reward_loss([-1000.0], [1000.0]))

# %% [markdown]
# ## Exercise 4.2: a reward for every token
#
# The answer gets one score at its last token; every token pays −β·(log π − log π_ref).
# `token_rewards(score, logprob, reference_logprob, beta)` for one answer: an array, a reward a token.

# %% tags=["exercise"]
def token_rewards(score, logprob, reference_logprob, beta):
    ...

# %% tags=["answer"]
def token_rewards(score, logprob, reference_logprob, beta):
    rewards = -beta * (np.asarray(logprob, dtype=float) - np.asarray(reference_logprob, dtype=float))
    rewards[-1] += score
    return rewards

# %%
rewards = token_rewards(2.0, [-1.0, -0.5, -2.0], [-1.5, -0.5, -1.0], beta=0.1)
print(rewards, "whose sum is the score less β times the answer's log-ratio:", rewards.sum())

# %% [markdown]
# ## Exercise 4.3: advantages
#
# Generalised advantage estimation for one answer: δ_t = r_t + γ·V_{t+1} − V_t, A_t = δ_t + γλ·A_{t+1}; behind the last token both are 0.
# `gae(rewards, values, discount, lam)`: an array.

# %% tags=["exercise"]
def gae(rewards, values, discount, lam):
    ...

# %% tags=["answer"]
def gae(rewards, values, discount, lam):
    advantage, following, result = 0.0, 0.0, []
    for reward, value in zip(reversed(list(rewards)), reversed(list(values)), strict=True):
        advantage = reward + discount * following - value + discount * lam * advantage
        following = value
        result.append(advantage)
    return np.array(result[::-1])

# %%
print("λ = 1: reward to go less the value", gae(rewards, [0.5, 0.6, 0.7], 1.0, 1.0))
print("λ = 0: one step's surprise        ", gae(rewards, [0.5, 0.6, 0.7], 1.0, 0.0))

# %% [markdown]
# ## Exercise 4.4: the clipped objective
#
# `clipped_loss(ratio, advantage, clip)`: −min(ρ·A, clip(ρ, 1−ε, 1+ε)·A), a number a token. Where does its gradient vanish?

# %% tags=["exercise"]
def clipped_loss(ratio, advantage, clip):
    ...

# %% tags=["answer"]
def clipped_loss(ratio, advantage, clip):
    ratio, advantage = np.asarray(ratio), np.asarray(advantage)
    return -np.minimum(ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage)

# %%
for advantage in (1.0, -1.0):
    print(f"A = {advantage:+.0f}:", {ratio: float(clipped_loss(ratio, advantage, 0.2)) for ratio in (0.5, 0.9, 1.0, 1.1, 1.5)})

# %% [markdown]
# A token that is already more probable gains nothing by becoming still more so, in this round; one that got *less* probable
# against its advantage is always pulled back. Now all of it together, with a reward that counts the letter e so that nothing has
# to be learned first:

# %%
import json
from pathlib import Path

import pairtune

Path("runs").mkdir(exist_ok=True)
Path("runs/letters.py").write_text(
    "def count_e(prompts, answers):\n    return [min(answer.count('e'), 10) / 5 for answer in answers]\n", encoding="utf-8"
)
folder = pairtune.ppo(
    data="examples/prompts.jsonl", reward_model="runs/letters.py:count_e", steps=4, batch_size=16, minibatches=2,
    learning_rate=3e-5, out="runs/course-ppo", sampling_max_new_tokens=16,
)  # fmt: skip
for line in (Path(folder) / "records.jsonl").read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    if row["kind"] == "step":
        print(f"step {row['step']}: reward {row['reward']:.2f}  KL {row['kl']:.2f}  ratios clipped {row['clip_fraction']:.1%}")
