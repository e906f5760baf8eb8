"""A trained model on disk, the files beside it, the competition's rules."""
