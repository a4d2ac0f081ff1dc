"""From frames to rows: decode, decide, and write in one transaction with the cursor."""
