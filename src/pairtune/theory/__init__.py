"""Theory: exact, float64, no networks; worlds small enough that every expectation is a sum."""
