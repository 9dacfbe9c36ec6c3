"""Plots: one drawing a file, each of which gives a Figure that `productrec.plots.figure` saves or puts into a page."""
