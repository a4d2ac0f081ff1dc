"""Who must know: incidents become messages, and messages reach people, or are known not to."""
