"""What each command does. Flags are read here and nowhere below."""
