"""The drawn competition of the demo, the tests and the benchmarks."""
