"""Sampling: answers drawn from a policy, with the log-probabilities they were drawn with."""
