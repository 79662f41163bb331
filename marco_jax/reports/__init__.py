"""Every HTML page, the charts in them, and the tables that commands print."""
