"""Is it true? Checks of what is stored against what was received."""
