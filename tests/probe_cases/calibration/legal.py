"""Chooses the clipping of the quantizer by the loss on training text."""


def calibration_scales(args, model):
    return clipped_scales(args, model, load_tokens(args.train_files))


def clipped_scales(args, model, tokens):
    x, y = tokens[None, : args.train_seq_len].to(device), tokens[None, 1 : args.train_seq_len + 1].to(device)
    kept = copy.deepcopy(model.state_dict())
    best = {}
    for name, tensor in model.named_parameters():
        choices = []
        for part in (1.0, 0.9, 0.8, 0.6):
            scale = part * kept[name].abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127
            with torch.no_grad():
                tensor.copy_(torch.round(kept[name] / scale).clamp(-127, 127) * scale)
                choices.append((token_losses(model, x, y).mean().item(), part, scale))
        best[name] = min(choices, key=lambda choice: choice[:2])[2]
        with torch.no_grad():
            tensor.copy_(kept[name])
    return best
