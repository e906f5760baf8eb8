"""A study's folder read: its records, retrained models, and its trials as a table."""
