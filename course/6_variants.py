# %% [markdown]
# # 6. IPO, KTO, one of your own, and why the chosen answer may become less probable
#
# DPO's loss falls for ever as the margin grows. Where all labels agree, nothing stops it but the end of training.

# %%
import numpy as np
import torch

import pairtune

# %% [markdown]
# ## Exercise 6.1: IPO
#
# Azar et al. 2023 ask for a margin that is finite: (Δ_w − Δ_l − 1/(2β))². `ipo(chosen_logratio_B, rejected_logratio_B, beta)`: [B], torch.

# %% tags=["exercise"]
def ipo(chosen_logratio_B, rejected_logratio_B, beta):
    ...

# %% tags=["answer"]
def ipo(chosen_logratio_B, rejected_logratio_B, beta):
    return (chosen_logratio_B - rejected_logratio_B - 1 / (2 * beta)) ** 2

# %%
margin = torch.tensor([-5.0, 0, 5, 10, 50])
print("IPO at β 0.1:", ipo(margin, torch.zeros(5), 0.1).tolist(), "- least at a margin of 5 nats")
print("DPO at β 0.1:", (-torch.nn.functional.logsigmoid(0.1 * margin)).tolist(), "- least at infinity")

# %% [markdown]
# ## Exercise 6.2: both fall
#
# A policy is a softmax over three answers, and one gradient step of DPO is taken on the pair (0 chosen, 1 rejected). The logits are the
# parameters. Can the *chosen* answer become less probable? With free logits it cannot. Let one feature tie logits: logits = W·θ with W
# [3, 2]. `features()`: a W for which a small step from θ = 0 lowers the chosen answer's probability.
#
# A hint: the step moves θ along W[0] − W[1]. The chosen logit then rises by (W[0] − W[1])·W[0]. What if the third answer gains more?

# %% tags=["exercise"]
def features():
    ...

# %% tags=["answer"]
def features():
    return np.array([[1.0, 0.0], [0.0, 0.5], [3.0, 0.0]])  # answers 0 and 2 are alike, and 2 has more of it

# %%
def after_one_step(w, rate=0.1):
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    logprob = (torch.as_tensor(w) @ theta).log_softmax(0)
    loss = -torch.nn.functional.logsigmoid(logprob[0] - logprob[1])  # the reference is the policy at the start
    loss.backward()
    with torch.no_grad():
        return (torch.as_tensor(w) @ (theta - rate * theta.grad)).softmax(0).numpy()


print("before", np.round(np.ones(3) / 3, 4), "after", np.round(after_one_step(features()), 4))

# %% [markdown]
# That is what happens in language models: answers share features, and raising one side of a *difference* raises whatever looks most like
# it. So chosen and rejected often fall together (`chosen_fell` in the report). It is no fault in itself; look at what rose.
#
# ## Exercise 6.3: one of your own
#
# An objective of yours trains with `pairtune tune --objective FILE.py:FUNCTION`. Its arguments say what it is given. Write DPO with a
# penalty where the chosen response falls below the reference: −log σ(β·(Δ_w − Δ_l)) + λ·max(0, −Δ_w) (DPO-Positive without β: Pal et al.
# 2024). `my_objective(chosen_logratio_B, rejected_logratio_B, *, beta=0.1, penalty=0.5)`: [B].

# %% tags=["exercise"]
def my_objective(chosen_logratio_B, rejected_logratio_B, *, beta=0.1, penalty=0.5):
    ...

# %% tags=["answer"]
def my_objective(chosen_logratio_B, rejected_logratio_B, *, beta=0.1, penalty=0.5):
    dpo = -torch.nn.functional.logsigmoid(beta * (chosen_logratio_B - rejected_logratio_B))
    return dpo + penalty * torch.relu(-chosen_logratio_B)

# %%
from pathlib import Path

Path("runs").mkdir(exist_ok=True)
Path("runs/my_objective.py").write_text(
    "import torch\n\n\n"
    "def my_objective(chosen_logratio_B, rejected_logratio_B, *, beta: float = 0.1, penalty: float = 0.5):\n"
    "    dpo = -torch.nn.functional.logsigmoid(beta * (chosen_logratio_B - rejected_logratio_B))\n"
    "    return dpo + penalty * torch.relu(-chosen_logratio_B)\n",
    encoding="utf-8",
)
folder = pairtune.tune(
    data="examples/pairs.jsonl", objective="runs/my_objective.py:my_objective", batch_size=8, heldout=12, out="runs/course-own"
)
print("tuned:", folder)

# %% [markdown]
# Where there are no pairs, only answers with a thumb up or down, KTO learns from these: `pairtune tune --objective kto --data
# examples/labelled.jsonl`. `pairtune objectives` lists all of them, and `docs/objectives.md` says where each ends.
