"""Assignment of anchors to faces, and the losses."""
