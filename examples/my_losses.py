"""Objectives of my own: `pairtune tune --objective examples/my_losses.py:shifted_dpo --data examples/pairs.jsonl`.

The names of the arguments say what a loss is given, one value a pair (B): docs/objectives.md lists them. What stands
after the * are parameters, each with a default; a line of the docstring says what it means.
"""

from torch.nn.functional import logsigmoid


def shifted_dpo(chosen_logratio_B, rejected_logratio_B, *, beta: float = 0.1, shift: float = 0.5):
    """DPO that asks for a margin: −log σ(β·(Δ_w − Δ_l) − s).

    beta: weight of KL(π‖π_ref); larger stays closer to the reference
    shift: s: implicit reward that the chosen response must be ahead by
    """
    return -logsigmoid(beta * (chosen_logratio_B - rejected_logratio_B) - shift)
