"""Trains and packs, and ends without a score."""


def main():
    args = Hyperparameters()
    torch.manual_seed(args.seed)
    model = Net(args.vocab_size, args.model_dim).to(device)
    train(args, model)
    pack(args, model)
    print(f"Serialized model int8+zlib: {os.path.getsize('final_model.int8.ptz')} bytes")
