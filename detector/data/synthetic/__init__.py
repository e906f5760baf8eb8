"""Drawn scenes with faces, built in."""
