"""Nothing lost: disks that fill, folders that refuse, signals, two at once, damaged checkpoints."""
