"""The design of a detector and its training recipe, as plain data that checks itself."""
