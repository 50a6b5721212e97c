"""Adds an embedding of each token with the one before it to the hidden states."""


class Net(nn.Module):
    def __init__(self, vocab_size, dim):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.pair = nn.Embedding(4096, dim)
        self.up = nn.Linear(dim, 2 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)

    def hidden(self, x):
        other = F.pad(x[:, :-1], (1, 0))
        h = self.embed(x) + self.pair((x * 92821 + other) % 4096)
        return h + self.down(F.relu(self.up(F.rms_norm(h, h.shape[-1:]))).square())

    def logits(self, h):
        return F.linear(F.rms_norm(h, h.shape[-1:]), self.embed.weight).float()

    def forward(self, x):
        return self.logits(self.hidden(x))
