"""Numbers from records: fronts, progress, correlations, importances. No drawing."""
