"""The one place where data become durable: append-only segment files, written by one process, read by any number."""
