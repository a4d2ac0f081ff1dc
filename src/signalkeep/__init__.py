"""signalkeep: the IoT core for vehicle fleets that loses nothing it has acknowledged."""

__version__ = "0.1.0"
