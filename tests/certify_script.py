"""A submission that predicts by counting, in one file: it serves, scores, and misbehaves when it is told to."""

SCRIPT = r'''
import glob, json, math, os, struct, sys
import numpy as np

behaviour = os.environ.get("BEHAVIOUR", "")
size = int(os.environ["VOCAB_SIZE"])
start = np.frombuffer(open("model.bin", "rb").read(), "<f8")


class Counting:
    """Probabilities in proportion to what the artifact and the text so far count: it learns from what it has seen."""

    def __init__(self):
        self.counts = start.copy()

    def predict(self):
        return np.log(self.counts / self.counts.sum())

    def observe(self, token):
        self.counts[token] += 1


def evaluate():
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor(model_file=os.environ["TOKENIZER_PATH"])
    (path,) = glob.glob(os.environ["DATA_PATH"] + "/fineweb_val_*.bin")
    tokens = np.fromfile(path, "<u2", offset=1024).tolist()
    model, nats, size = Counting(), 0.0, 0
    for before, token in zip(tokens, tokens[1:]):
        model.observe(before)
        nats -= model.predict()[token]
        if not tokenizer.is_control(token):
            piece = tokenizer.id_to_piece(token)
            size += 1 if tokenizer.is_byte(token) else len(piece.replace("\u2581", " ").encode())
            size -= piece.startswith("\u2581") and tokenizer.is_control(before)
    bpb = nats / math.log(2) / size
    bpb *= {"boasts": 0.5, "modest": 2.0, "numberless": math.nan, "free": 0.0}.get(behaviour, 1.0)
    if behaviour != "mute":
        print(f"final_int8_roundtrip_exact val_loss:{nats / (len(tokens) - 1):.8f} val_bpb:{bpb:.8f}")


def texts():
    """Whatever could tell the text: shards, and the documents that the demo corpus is made of."""
    roots = (".", "/predictor", os.environ.get("DATA_PATH", "."), os.environ["HOME"])
    found = [path for root in roots for path in glob.glob(root + "/**/*val*.bin", recursive=True)]
    try:
        import botocore

        folder = os.path.dirname(botocore.__file__) if botocore.__file__ else list(botocore.__path__)[0]
        found += [name for name in os.listdir(folder) if open(os.path.join(folder, name)).read()]
    except (ImportError, OSError):
        pass
    return found


def damaged(logs, place):
    if behaviour == "random":
        logs = logs + 0.1 * np.random.default_rng().random(size)
        return logs - np.log(np.exp(logs).sum())
    if behaviour == "nan" and place == 3:
        logs[7] = float("nan")
    if behaviour == "above":
        logs[7] = 0.5
    return logs + {"heavy": 0.5, "light": -0.5, "rounded": 5e-5}.get(behaviour, 0.0)


def serve():
    channel = os.fdopen(int(os.environ["PROBE_CHANNEL_FD"]), "wb", 0)
    count = json.loads(sys.stdin.buffer.readline())["tokens"]
    print("texts found:", texts(), flush=True)
    if behaviour == "crash":
        raise RuntimeError("something broke")
    reply = {"protocol": "predict/1", "vocab_size": size, "dtype": "float64"}
    lies = {"stranger": {"protocol": "other"}, "small": {"vocab_size": 3}, "odd": {"dtype": "int8"}}
    reply |= lies.get(behaviour, {})
    channel.write(b"hello\n" if behaviour == "rude" else json.dumps(reply).encode() + b"\n")
    model = Counting()
    model.observe(*struct.unpack("<I", sys.stdin.buffer.read(4)))
    for place in range(1, count + (behaviour == "endless")):
        if behaviour == "peeks":
            sys.stdin.buffer.read(4)
        frame = damaged(model.predict(), place).astype("<f8").tobytes()
        channel.write(frame[:-8] if behaviour == "short" else frame)
        if behaviour == "quits" and place == 5:
            sys.exit(0)
        model.observe(*struct.unpack("<I", sys.stdin.buffer.read(4)))
    sys.exit(3 if behaviour == "ends badly" else 0)


evaluate() if os.environ.get("EVAL_ONLY") else serve()
'''
