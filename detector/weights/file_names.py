"""The name of the checkpoint file, for code that must not import torch."""

LAST = "last.pt"
"""The checkpoint of the last finished epoch, from which training resumes; last.json beside it is
its readable part."""
