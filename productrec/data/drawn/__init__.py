"""The drawn competition: products that nobody sells, photographed; for the demo, tests and benchmarks."""
