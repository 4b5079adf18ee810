"""Data, reference models and their training.  Import from the modules: the data part needs no torch."""
