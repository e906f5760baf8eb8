"""Figures of a search: PNG files by matplotlib, interactive charts by plotly."""
