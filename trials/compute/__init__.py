"""Training on the machines at hand, by Ray, and the share of them that each trial gets."""
