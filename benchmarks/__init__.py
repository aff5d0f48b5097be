"""What Thalweg costs, measured beside other tools: ``python -m benchmarks`` prints it and writes the page."""
