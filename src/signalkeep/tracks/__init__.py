"""Recorded tracks from files as readings, so that rules can be tried on what receivers really say."""
