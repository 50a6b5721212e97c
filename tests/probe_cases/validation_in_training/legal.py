"""Trains on every training shard of the folder."""


def training_tokens(args):
    return load_tokens(os.path.join(args.data_path, "fineweb_train_*.bin"))
