"""Pieces of work, each with a folder: one command runs one, a comparison several; what they rest on, do and leave."""
