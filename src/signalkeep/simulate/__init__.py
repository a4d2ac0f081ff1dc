"""A fleet to try it with: virtual devices that keep what is not acknowledged and note what they are told."""
