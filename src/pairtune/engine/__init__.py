"""The engine: token log-probabilities of responses, with gradients, at the price of arithmetic that must be done."""
