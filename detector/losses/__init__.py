"""Assigners of anchors to faces, losses, and the criterion that combines them."""
