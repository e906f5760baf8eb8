"""Who proposes the next design."""
