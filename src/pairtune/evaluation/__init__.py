"""Evidence: what a policy does on held-out pairs and on fresh samples, and how sure the numbers are."""
