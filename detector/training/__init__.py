"""The training loop, its step, its optimiser, its workers."""
