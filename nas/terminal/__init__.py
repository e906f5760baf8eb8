"""Flags that commands share, and progress bars."""
