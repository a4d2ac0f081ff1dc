"""The command line: one file a group of commands. It alone, with the supervisor, puts the stages together."""
