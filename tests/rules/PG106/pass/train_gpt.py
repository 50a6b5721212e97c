"""A stand-in for a training script that counts its own code compressed."""

import base64
import lzma
import os
import subprocess

SEED = int(os.environ.get("SEED", "1"))


def code_bytes(source: bytes) -> int:
    command = ["pyminify", "--no-rename-locals", "--no-hoist-literals", "--remove-literal-statements", "-"]
    small = subprocess.run(command, input=source, capture_output=True, check=True).stdout
    return len(base64.b85encode(lzma.compress(small))) + 65


if __name__ == "__main__":
    with open(__file__, "rb") as file:
        print(f"Code size (compressed): {code_bytes(file.read())} bytes")
