"""PNG files, drawn by matplotlib."""
