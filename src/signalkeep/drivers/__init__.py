"""HOW JOURNALS ARE EMPTIED: what those who read them into the database and those who send them on have in common."""
