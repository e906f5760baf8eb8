"""A study on disk, and its views."""
