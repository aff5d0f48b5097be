"""How right diagnoses are: pathologies made on purpose in small networks that really train, and healthy runs."""
