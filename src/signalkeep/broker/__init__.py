"""BETWEEN MACHINES: journals go to RabbitMQ by the relay, and from there to workers. Transport, never the truth."""
