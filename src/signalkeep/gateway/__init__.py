"""How devices reach us: sockets in, frames into the journal, replies out when the journal says "durable"."""
