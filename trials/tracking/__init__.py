"""What of a search is shown in MLflow: its store, the view of a study, runs linked to it."""
