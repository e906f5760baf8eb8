"""Search spaces, presets, recipes and a recorded table: a package, so that a wheel carries them."""
