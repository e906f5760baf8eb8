"""The search itself: what is tried first, drawn, trained, promoted."""
