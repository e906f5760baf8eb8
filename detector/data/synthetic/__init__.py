"""Built-in drawn scenes with faces."""
