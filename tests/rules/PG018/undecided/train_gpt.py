import zlib
exec(zlib.decompress(open(input(), "rb").read()))
