"""Anchors, box coding, layout of the logits, post-processing (non-maximum suppression)."""
