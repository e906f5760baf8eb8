"""A trained model on disk, the files that belong to it, the competition's rules."""
