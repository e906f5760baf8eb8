"""The layers of a design as plain data, its parameters and MACs; no torch."""
