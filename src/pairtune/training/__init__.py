"""Training: weights move here, and nowhere else."""
