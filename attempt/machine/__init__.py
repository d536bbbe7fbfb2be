"""Where a run computes: the device, graphs on it, several processes, and the signals that end them."""
