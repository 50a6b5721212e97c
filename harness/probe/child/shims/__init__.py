"""What stands in for a CUDA machine and its libraries; each replacement says once what it approximates."""
