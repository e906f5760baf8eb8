"""A search in MLflow: the store, the view of a study, runs linked to it."""
