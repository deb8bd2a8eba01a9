"""Online preference tuning: of a prompt's answers the best and the worst are a pair, which an objective learns from.

Guo et al. 2024, arXiv 2402.04792, with a reward in the place of the one that labels. Shape suffixes: P prompts of one
step, K answers to each, R the tokens of a pass end to end.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.logprob import token_logprobs
from pairtune.objectives.loss import Loss
from pairtune.objectives.quantities import quantities
from pairtune.settings import OnlinePreference
from pairtune.training.grouped import Silence
from pairtune.training.online import ADAM_EPS, Round
from pairtune.training.step import Optimizer, micro_batches


class OnlinePairs:
    """Pairs made of each round's answers, and an objective's update on them; the policy alone learns."""

    def __init__(self, policy: PreTrainedModel, loss: Loss, settings: OnlinePreference) -> None:
        self.policy, self.loss, self.temperature = policy, loss, settings.temperature
        self.answers_per_prompt = settings.answers_per_prompt
        self.optimizers = {"": Optimizer(policy.parameters(), eps=ADAM_EPS)}
        self.rates = {"": settings.learning_rate}
        self.state: dict[str, Tensor] = {}
        self.silence = Silence()
        self.rows: list[Tokens] = []
        self.old: list[Tensor] = []
        self.reference: list[Tensor] = []

    def begin(self, drawn: Round) -> tuple[list[Tokens], dict[str, float]]:
        """The round's pairs; a prompt whose answers have equal rewards gives none."""
        score_PK = drawn.score_S.view(len(drawn.rows), self.answers_per_prompt)
        self.rows, self.old, self.reference = [], [], []
        for i, sides in enumerate(best_and_worst(score_PK)):
            if sides:
                row = drawn.rows[i]
                sizes = [len(response) for response in row.responses]
                self.rows.append(Tokens(row.prompt, tuple(row.responses[side] for side in sides)))
                for kept, of_round in ((self.old, drawn.old), (self.reference, drawn.reference)):
                    parts = of_round[i].split(sizes)
                    kept.append(torch.cat([parts[side] for side in sides]))
        gap_P = score_PK.amax(1) - score_PK.amin(1)
        return self.rows, {"reward_gap": float(gap_P.mean())} | self.silence.share(score_PK)

    def gradients(self, indices: Sequence[int]) -> dict[str, float]:
        """Of the objective's mean over the minibatch's pairs."""
        device = self.policy.device
        tokens = sum(len(response) for i in indices for response in self.rows[i].responses)
        figures = dict.fromkeys(("loss", "margin", "accuracy", "log_ratio_error"), 0.0)
        for group in micro_batches(self.rows, indices, device):
            batch = pack([self.rows[i] for i in group]).to(device)
            old_R, reference_R = (torch.cat([part[i] for i in group]).to(device) for part in (self.old, self.reference))
            logprob_R = token_logprobs(self.policy, batch, temperature=self.temperature)
            of_tokens = {"logprob": logprob_R, "reference": reference_R}
            label_S = torch.tensor([True, False] * len(group), device=device)
            names = ("chosen_logratio_B", "rejected_logratio_B")
            found = quantities(names, of_tokens, batch.lengths(), label_S, {})
            loss_B = self.loss(found)
            (loss_B.sum() / len(indices)).backward()
            margin_B = (found[names[0]] - found[names[1]]).detach()
            figures["loss"] += float(loss_B.detach().sum()) / len(indices)
            figures["margin"] += float(margin_B.sum()) / len(indices)
            figures["accuracy"] += float(((margin_B > 0).float() + 0.5 * (margin_B == 0).float()).sum()) / len(indices)
            figures["log_ratio_error"] += float((logprob_R.detach() - old_R).abs().sum()) / tokens
        return figures

    def end(self, kl: float, answers: int) -> dict[str, float]:
        """Nothing is remembered, and there is nothing more to tell."""
        return {}


def best_and_worst(score_PK: Tensor) -> list[tuple[int, int] | None]:
    """Which of a prompt's answers has the highest reward and which the lowest, of equals the first; None of equals."""
    found = []
    for scores in score_PK.tolist():
        best, worst = max(scores), min(scores)
        found.append((scores.index(best), scores.index(worst)) if best > worst else None)
    return found
