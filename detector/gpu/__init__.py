"""Triton kernels of single operations, and whether they can be built here."""
