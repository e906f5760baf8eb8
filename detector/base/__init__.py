"""General parts: errors, files, how commands and processes behave, plain data, YAML."""
