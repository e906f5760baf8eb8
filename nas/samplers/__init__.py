"""Samplers, which propose the next design, and the adapter for Optuna."""
