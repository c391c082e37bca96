"""Every parser against files and words that nobody meant; see test_parsers.py."""
