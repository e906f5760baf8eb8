"""Images and their faces: WIDER FACE or a built-in drawn set, split, cached and augmented."""
