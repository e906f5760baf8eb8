"""A design as plain layers, and the parameters and MACs that follow; no torch."""
