"""What a detector is and how it is trained, as plain data that checks itself."""
