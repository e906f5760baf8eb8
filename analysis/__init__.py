"""Reads records: fronts, tables, figures. Needs neither torch nor Ray."""
