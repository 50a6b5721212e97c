"""A helper that the script imports."""

TABLE = "xxxx"
