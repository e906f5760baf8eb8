"""Images and their faces, from WIDER FACE or synthetic: split, cached, augmented."""
