"""A model, or prediction files, scored on the val images."""
