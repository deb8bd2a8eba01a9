# %% [markdown]
# # 1. Preferences, and the best policy under a KL constraint
#
# From now on a *policy* π(y|x) is a language model that answers a prompt x with y, and the *reference* π_ref is the model we start from.
# People do not give numbers to answers; they say which of two they prefer. Everything in this course follows from two assumptions:
#
# 1. **Bradley–Terry.** Each answer has a reward r(x, y), and P(y₁ ≻ y₂) = σ(r(x, y₁) − r(x, y₂)), with σ(z) = 1/(1 + e^(−z)).
# 2. **Stay near what you know.** We want high reward without leaving the reference: maximise E[r] − β·KL(π‖π_ref).
#
# A world of one prompt and four answers is small enough to see all of it.

# %%
import numpy as np

ANSWERS = ["A", "B", "C", "D"]
reference = np.array([0.1, 0.2, 0.4, 0.3])
reward = np.array([1.0, 0.5, 0.0, -1.0])

# %% [markdown]
# ## Exercise 1.1: who wins?
#
# `win_probability(first, second)`: P(first ≻ second) from two rewards, numbers or arrays.

# %% tags=["exercise"]
def win_probability(first, second):
    ...

# %% tags=["answer"]
def win_probability(first, second):
    return 1 / (1 + np.exp(-(np.asarray(first) - np.asarray(second))))

# %%
for i in range(4):
    print(ANSWERS[i], np.round([float(win_probability(reward[i], other)) for other in reward], 2))

# %% [markdown]
# Only differences of rewards are in it: r and r + 10 say the same. Data never tell the zero of a reward.
#
# ## Exercise 1.2: how far is it?
#
# `kl(policy, reference)`: Σ_y π(y)·(log π(y) − log π_ref(y)), in nats.

# %% tags=["exercise"]
def kl(policy, reference):
    ...

# %% tags=["answer"]
def kl(policy, reference):
    policy, reference = np.asarray(policy), np.asarray(reference)
    seen = policy > 0  # 0·log 0 is 0
    return float((policy[seen] * (np.log(policy[seen]) - np.log(reference[seen]))).sum())

# %%
greedy = np.array([1.0, 0, 0, 0])
print("always A:", kl(greedy, reference), "nats; that is −log 0.1 =", -np.log(0.1))

# %% [markdown]
# ## Exercise 1.3: the best policy
#
# E_π[r] − β·KL(π‖π_ref) = −β·KL(π‖π*) + β·log Z, with π*(y) = π_ref(y)·exp(r(y)/β)/Z. The left side is largest where KL(π‖π*) is
# 0: at π*. That is the whole proof; `pairtune derive` checks each step in numbers.
#
# `best_policy(reference, reward, beta)`: π*.

# %% tags=["exercise"]
def best_policy(reference, reward, beta):
    ...

# %% tags=["answer"]
def best_policy(reference, reward, beta):
    logits = np.log(reference) + np.asarray(reward) / beta
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()

# %%
def objective(policy, beta):
    return float(policy @ reward) - beta * kl(policy, reference)


for beta in (0.1, 0.5, 2.0):
    best = best_policy(reference, reward, beta)
    print(f"β {beta}: π* = {np.round(best, 2)}, E[r] {best @ reward:.2f}, KL {kl(best, reference):.2f} nats")
    tried = np.random.default_rng(0).dirichlet(np.ones(4), 10_000)
    assert max(objective(each, beta) for each in tried) <= objective(best, beta)  # nobody is better

# %% [markdown]
# A small β goes far for the reward, a large one stays. Turned round, π* gives the reward back: r(y) = β·log(π*(y)/π_ref(y)) + β·log Z.
# In the *difference* of two rewards Z is gone. So Bradley–Terry can be written with policies alone, and no reward model is needed.
# That sentence is DPO; the next notebook writes it down.
