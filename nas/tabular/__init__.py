"""Searches replayed on a recorded table of trained designs."""
