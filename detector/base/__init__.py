"""What knows no faces: errors, how commands and processes behave, plain data, YAML."""
