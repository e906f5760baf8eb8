"""Rounds after a search: the most promising designs trained at growing budgets."""
