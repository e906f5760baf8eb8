"""Configurable one-stage face detectors: build, train, evaluate. Knows no search."""
