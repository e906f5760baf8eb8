"""The difficulty levels of WIDER FACE. Imports nothing."""

LEVELS = ("easy", "medium", "hard")
