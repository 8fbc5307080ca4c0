"""What runs a suite against a cluster and writes down what came of it."""
