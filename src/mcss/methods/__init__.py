"""One file per method: its settings, network, losses, and departures from its paper."""
