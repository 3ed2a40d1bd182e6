"""What every other layer may use: files, errors, logging, hardware."""
