"""Side by side with peers, in one run: `python -m benchmarks.NAME`, or `python -m benchmarks` for all and the table.

How it is measured. Each measurement is a process of its own; the sides take turns (A B A B), and the ratio is taken
pair by pair, so that what slows the machine down slows both. Both sides get the same model folder, the same token
ids (checked), the same number of pairs in a batch, AdamW (fused) with the same learning rate, all threads of torch.

What is counted. From the first pass of the reference to the last update: reference (ours: hashing the weights and
writing the cache too), batching, the optimiser's set-up, forward, backward, update; for sampling, reading the prompts
and writing the tokens; for PPO, answers, scores and updates. Not counted, on both sides: imports, loading models,
tokenising, and a warm-up of one step of the timed size at learning rate 0, on other pairs (for sampling, the same
rows once before), so that no side pays for memory that it touches for the first time. Compiling that the warm-up does
not reach is counted.
"""
