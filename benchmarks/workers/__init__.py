"""What runs inside a timed process: a job in, a result out. A peer's interpreter runs `trl`, ours runs the rest."""
