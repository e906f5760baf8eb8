"""One candidate trained in full."""
