"""What is configured, reachable and broken, as findings that say what to do. Drawing them is the command line's."""
