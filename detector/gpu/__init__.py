"""Triton kernels of single operations, and a test whether they run here."""
