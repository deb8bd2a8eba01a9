"""Models: how one is found and loaded, the machine it runs on, and the scalar heads put on top."""
