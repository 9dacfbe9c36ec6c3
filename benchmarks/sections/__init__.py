"""Sections of the benchmarks: each measures one thing; the scripts beside this folder call them."""
