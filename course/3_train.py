# %% [markdown]
# # 3. Train it on text
#
# DPO needs the pairs, the policy and the reference's log-probabilities, which are computed **once** per pair because the reference never
# changes. Passes through the model for each pair and epoch, and what lies in memory:
#
# | | forward | backward | models in memory |
# |---|---|---|---|
# | DPO, the reference computed once | 1, both answers behind one reading of the prompt | 1 | the policy |
# | PPO, for each answer | sampling, 1 reward, 1 reference, 1 value, then 1 policy and 1 value in each epoch | 1 policy and 1 value in each epoch | policy, value, reward, reference |

# %%
import json
import math
from pathlib import Path

import pairtune

DATA = Path("examples/pairs.jsonl")
rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
print(len(rows), "pairs; the first:")
print(json.dumps(rows[0], indent=1))

# %% [markdown]
# `pairtune check` looks at data before a step is spent. "The longer wins" is the baseline to beat: a model that has learned only that
# is right as often.

# %%
longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows) / len(rows)
print(f"the longer answer is the chosen one in {longer:.0%}")

# %% [markdown]
# Training is one call. `beta`, `learning_rate` and `epochs` are the three settings that matter.

# %%
folder = pairtune.tune(data=DATA, beta=0.1, learning_rate=2e-5, epochs=2, batch_size=8, heldout=12, out="runs/course-tune")
records = [json.loads(line) for line in (Path(folder) / "records.jsonl").read_text(encoding="utf-8").splitlines()]
steps = [row for row in records if row["kind"] == "step"]
print("first loss", steps[0]["loss"], "and ln 2 is", math.log(2))
print("last loss ", steps[-1]["loss"])

# %% [markdown]
# The first loss is ln 2 because the policy still *is* the reference: every margin is 0. If it is not, something is wrong: another
# reference, dropout left on, a truncated prompt. Look at it first, always.
#
# ## Exercise 3.1: held-out accuracy
#
# The log-ratios of chosen and rejected responses of pairs that were not trained on say whether the policy has learned the preference.
# `accuracy(chosen, rejected)`: the share of pairs whose chosen log-ratio is the larger; an exact tie counts half.

# %% tags=["exercise"]
def accuracy(chosen, rejected):
    ...

# %% tags=["answer"]
def accuracy(chosen, rejected):
    return sum((c > r) + 0.5 * (c == r) for c, r in zip(chosen, rejected, strict=True)) / len(chosen)

# %%
policy, reference = (pairtune.log_probs(model=model, data=DATA) for model in (folder, "smollm2-135m"))
chosen = [p["chosen"] - r["chosen"] for p, r in zip(policy, reference, strict=True)]
rejected = [p["rejected"] - r["rejected"] for p, r in zip(policy, reference, strict=True)]
print(f"right on {accuracy(chosen, rejected):.0%} of all {len(rows)} pairs, most of which it was trained on")

# %% [markdown]
# ## Exercise 3.2: what became more probable?
#
# `mean_change(log_ratios, tokens)`: the change of log-probability per *token*, over all responses together (sum of log-ratios over sum of
# tokens, which is not the mean of the responses' means).

# %% tags=["exercise"]
def mean_change(log_ratios, tokens):
    ...

# %% tags=["answer"]
def mean_change(log_ratios, tokens):
    return sum(log_ratios) / sum(tokens)

# %%
for side, ratios in (("chosen", chosen), ("rejected", rejected)):
    print(f"{side}: {mean_change(ratios, [row[side + '_tokens'] for row in policy]):+.3f} nats a token")

# %% [markdown]
# DPO looks at the difference only. Often both fall, the rejected response further: notebook 6 asks why.
