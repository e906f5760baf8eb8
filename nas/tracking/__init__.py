"""Searches, retrains and evaluations in MLflow, and its model registry."""
