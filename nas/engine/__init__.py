"""The search itself: what is tried first, sampled, trained, promoted."""
