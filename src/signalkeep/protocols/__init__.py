"""What devices say. Pure: bytes in, events out; no I/O, clock, log or randomness. One file per protocol."""
