"""Backbones: each is a table and a loop that yields its layers; no torch."""
