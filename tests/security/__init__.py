"""What hostile files, names and options may not do; see docs/security.md."""
