"""pairtune: preference pairs in, an aligned language model out, and an honest answer to which method won."""
