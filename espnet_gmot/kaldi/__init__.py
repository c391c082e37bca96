"""The formats of Kaldi's data directories: tables, audio and matrices, one reader and one writer each, for everyone."""
