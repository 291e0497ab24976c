"""What the user gives: volumes, sparse annotations and their files."""
