"""Write and verify token shards, tokenizers and their manifests."""
