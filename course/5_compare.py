# %% [markdown]
# # 5. Compare, and what may be concluded
#
# Two models were scored on the same 40 prompts. Is the second one better?

# %%
import numpy as np
from scipy.stats import binomtest

random = np.random.default_rng(1)
hard = random.normal(size=40)  # some prompts are harder than others, for both
first = hard + 0.3 * random.normal(size=40)
second = hard + 0.3 * random.normal(size=40) + 0.25
print(f"means {first.mean():.2f} and {second.mean():.2f}, each ± {1.96 * first.std(ddof=1) / 40**0.5:.2f}: the intervals overlap widely")

# %% [markdown]
# ## Exercise 5.1: pair what is paired
#
# Both answered the *same* prompts: what makes a prompt hard is in both scores and cancels in their difference.
# `paired_interval(first, second)`: (low, high), a 95% interval of the mean of second − first: mean ± 1.96 standard errors.

# %% tags=["exercise"]
def paired_interval(first, second):
    ...

# %% tags=["answer"]
def paired_interval(first, second):
    difference = np.asarray(second) - np.asarray(first)
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return difference.mean() - 1.96 * error, difference.mean() + 1.96 * error

# %%
print("second − first:", np.round(paired_interval(first, second), 2), "does not hold 0")

# %% [markdown]
# ## Exercise 5.2: better than a coin?
#
# "63% of 30 held-out pairs": could it be luck? `chance_of(right, pairs)`: the probability that a coin is right on *at least* so many.

# %% tags=["exercise"]
def chance_of(right, pairs):
    ...

# %% tags=["answer"]
def chance_of(right, pairs):
    return float(binomtest(right, pairs, 0.5, alternative="greater").pvalue)

# %%
for right, pairs in ((19, 30), (63, 100), (190, 300)):
    print(f"{right} of {pairs}: a coin does so well in {chance_of(right, pairs):.4f} of all tries")

# %% [markdown]
# ## Exercise 5.3: the winner's curse
#
# Take the best of several settings *by the score you then report*, and you report luck. `winners_curse(candidates, noise)`: how much too
# high that score is on average where all candidates are equally good, their scores normal with deviation `noise`. Simulate it.

# %% tags=["exercise"]
def winners_curse(candidates, noise):
    ...

# %% tags=["answer"]
def winners_curse(candidates, noise):
    return float(noise * np.random.default_rng(0).normal(size=(200_000 // candidates, candidates)).max(axis=1).mean())

# %%
for candidates in (1, 4, 20):
    print(f"best of {candidates:>2}: too high by {winners_curse(candidates, 0.1):.3f} at a noise of 0.1")

# %% [markdown]
# `pairtune compare` chooses by validation prompts and reports on held-out ones, so its figure is free of this. It pairs differences by prompt,
# gives each mean with n and interval, and says "no detectable difference" where the interval holds 0. What it cannot know: one seed's
# interval covers prompts, not what another run of training would have done. And a score without a price for distance always
# asks for more of it: compare at equal KL.
#
# The same question as a table and a page, in minutes (a day's patience is not needed):
#
#     pairtune compare --methods dpo ppo
