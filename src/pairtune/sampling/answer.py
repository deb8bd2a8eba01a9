"""What sampling gives."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: its tokens (with the end-of-text token if it ended), each token's log-probability in nats."""

    response: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
