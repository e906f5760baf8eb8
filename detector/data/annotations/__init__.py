"""Label formats: read, written, converted."""
