"""Interactive charts, drawn by plotly."""
