"""One truth: everything that talks to PostgreSQL. Nothing outside this package imports the database driver."""
