"""One file a method: its settings, network, loss and what differs from its paper."""
