"""A reward of my own: `pairtune ppo --reward-model examples/my_reward.py:score --data examples/prompts.jsonl`.

It takes prompts and answers as text, and returns a number for each answer. PPO's weight of the KL is in its unit.
"""


def score(prompts: list[str], answers: list[str]) -> list[float]:
    """One for an answer of at least one whole sentence, less for one that goes on and on."""
    return [float("." in answer) - 0.01 * max(0, len(answer) - 200) for answer in answers]
