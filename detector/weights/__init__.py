"""Checkpoints, weight files, and weights transferred between designs."""
