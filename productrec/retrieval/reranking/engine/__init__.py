"""What several re-rankings stand on: sparse weights, sets, graphs and best candidates."""
