"""Shares of machines, and the Ray that trains on them."""
