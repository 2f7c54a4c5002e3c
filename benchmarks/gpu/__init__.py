"""What a machine with a GPU is asked, part by part: see benchmarks/README.md."""
