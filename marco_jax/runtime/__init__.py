"""What every command needs of the process it runs in: log lines and progress."""
