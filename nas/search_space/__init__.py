"""A YAML file read as a space of designs."""
