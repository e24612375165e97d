"""What many tests are made of: tiny models, flags of short runs, small data, a hub on this machine."""
