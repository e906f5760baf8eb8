"""Anchors, box coding, post-processing (non-maximum suppression)."""
