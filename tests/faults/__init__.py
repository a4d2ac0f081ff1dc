"""Faults put in on purpose, and the checker that says whether anything was lost."""
