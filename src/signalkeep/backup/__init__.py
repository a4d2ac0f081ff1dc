"""Backups of database and journals, and the way back."""
