# %% [markdown]
# # 2. DPO in thirty lines
#
# With r(x, y) = β·log(π(y|x)/π_ref(y|x)) + β·log Z(x) in Bradley–Terry, the likelihood of "y_w was preferred to y_l" is
# σ(β·(Δ_w − Δ_l)), where Δ = log π(y|x) − log π_ref(y|x). Its negative logarithm is the DPO loss (Rafailov et al. 2023).
#
# log π(y|x) of a *response* is a **sum** over its tokens: log π(y₁|x) + log π(y₂|x, y₁) + ... A model's logits at a position are of the
# **next** token, and the prompt's own tokens do not belong to it.

# %%
import numpy as np
import torch
from torch.nn.functional import logsigmoid

import pairtune

# %% [markdown]
# ## Exercise 2.1: log π of a response
#
# `response_logprob(model, side)`: [B]. `side.ids` [B, T] are prompts and responses with padding behind, `side.is_response` [B, T] says
# which tokens are the response's, and `model(ids).logits` is [B, T, V]. Five lines of torch.

# %% tags=["exercise"]
def response_logprob(model, side):
    ...

# %% tags=["answer"]
def response_logprob(model, side):
    logprob = model(side.ids).logits.log_softmax(-1)[:, :-1]  # at each position, of the next token
    taken = logprob.gather(-1, side.ids[:, 1:, None])[..., 0]
    return (taken * side.is_response[:, 1:]).sum(-1)

# %% [markdown]
# ## Exercise 2.2: the loss
#
# `my_dpo(policy, reference, chosen, rejected, beta)`: the mean over the pairs. The reference learns nothing. Far from the reference σ
# rounds to 0 and its logarithm is −∞: there is one function for both.

# %% tags=["exercise"]
def my_dpo(policy, reference, chosen, rejected, beta):
    ...

# %% tags=["answer"]
def my_dpo(policy, reference, chosen, rejected, beta):
    with torch.no_grad():
        frozen = response_logprob(reference, chosen) - response_logprob(reference, rejected)
    margin = response_logprob(policy, chosen) - response_logprob(policy, rejected) - frozen
    return -logsigmoid(beta * margin).mean()

# %% [markdown]
# Is it right? `pairtune.check_loss` holds it against a loss by hand, against its slope and against the theory, and names the usual
# mistakes: the sign, β, the reference, a mean for the sum, the prompt's tokens, the shift by one. On the command line:
# `pairtune check-loss my_dpo.py`.

# %%
assert pairtune.check_loss(my_dpo)

# %% [markdown]
# Now make a mistake on purpose and look at what it says.

# %%
def meaned(policy, reference, chosen, rejected, beta):
    def mean_logprob(model, side):
        return response_logprob(model, side) / side.is_response.sum(-1)

    with torch.no_grad():
        frozen = mean_logprob(reference, chosen) - mean_logprob(reference, rejected)
    return -logsigmoid(beta * (mean_logprob(policy, chosen) - mean_logprob(policy, rejected) - frozen)).mean()


pairtune.check_loss(meaned)

# %% [markdown]
# ## Exercise 2.3: which pairs teach?
#
# The gradient of a pair's loss is −w·(∇log π(y_w|x) − ∇log π(y_l|x)). `gradient_weight(margin, beta)`: w, from the margin Δ_w − Δ_l.

# %% tags=["exercise"]
def gradient_weight(margin, beta):
    ...

# %% tags=["answer"]
def gradient_weight(margin, beta):
    return beta / (1 + np.exp(beta * np.asarray(margin, dtype=float)))  # β·σ(−β·margin)

# %%
for margin in (-20, -5, 0, 5, 20, 100):
    print(f"margin {margin:>4} nats: weight {float(gradient_weight(margin, 0.1)):.4f}")

# %% [markdown]
# A pair that the policy has the wrong way round teaches with up to β, one at the reference with β/2, one that is settled with nearly nothing.
# But "nearly nothing" never is nothing: with labels that are certain the margin grows without end. Notebook 6 comes back to that.
