"""A whole signalkeep in one process, in virtual time: real gateway, journal and ingest on a disk and a network that are
made up, beside a real PostgreSQL that works in step. One seed is one history, and it can be run again."""
