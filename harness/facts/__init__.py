"""What is known of a submission: typed values, each with the place where it was read."""
