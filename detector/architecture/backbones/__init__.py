"""Backbones: each is a table and a loop that writes its layers down; no torch."""
