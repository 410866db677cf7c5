"""`plait as NAME`: one file per program that Plait stands in for, each with that program's own flags and defaults."""
