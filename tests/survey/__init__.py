"""pairtune against plain transformers, on a tiny random model of every causal language model there is.

    python -m tests.survey                       everything, and the table into docs/architectures.md
    python -m tests.survey --only gemma2 mamba   these architectures, the table on the terminal

The right values come from plain transformers, one sequence at a time, without padding and without a cache: nothing of
them is computed by pairtune (`plain.py`). What pairtune makes of the same folder is gathered in `ours.py`.
"""
