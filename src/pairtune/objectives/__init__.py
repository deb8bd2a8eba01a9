"""Objectives: log-probabilities in, one loss per example out; no model, no settings, no I/O."""
