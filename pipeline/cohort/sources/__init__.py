"""Public data sets: one file each, which writes a manifest from the tables of the data set."""
