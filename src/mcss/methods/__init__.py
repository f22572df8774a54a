"""Methods: one file each, with its settings, its losses and what differs from its paper."""
