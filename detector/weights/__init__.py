"""Checkpoints, weight files, and weights of one design for another one."""
