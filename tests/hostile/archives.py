"""Makes evil archives into the folder of the first argument; the second is a path that no archive may write.

Writes a JSON list of [file, part of the text that refuses it]. Each also holds a good function, so that it fails for what is evil in it.
"""

import gzip
import io
import json
import os
import stat
import struct
import sys
import tarfile
import zipfile

OUT, CANARY = sys.argv[1], sys.argv[2]
MAIN = b"import functions_framework\n\n@functions_framework.http\ndef hello(request):\n    return 'good'\n"
REQUIREMENTS = b"functions-framework==3.*\n"
MADE = []
UP = "../" * 20 + CANARY.lstrip("/")


def named(name, text):
    MADE.append([name, text])
    return os.path.join(OUT, name)


def zipped(name, text, *entries, good=True):
    """`entries` are (name or ZipInfo, content)."""
    with zipfile.ZipFile(named(name, text), "w", zipfile.ZIP_DEFLATED) as archive:
        if good:
            archive.writestr("main.py", MAIN)
            archive.writestr("requirements.txt", REQUIREMENTS)
        for entry, content in entries:
            archive.writestr(entry, content)


def info(name, mode):
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = mode << 16
    return entry


def tarred(name, text, *entries):
    """`entries` are (name, type, link target or content)."""
    with tarfile.open(named(name, text), "w:gz") as archive:
        for good, content in (("main.py", MAIN), ("requirements.txt", REQUIREMENTS)):
            entry = tarfile.TarInfo(good)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for path, kind, more in entries:
            entry = tarfile.TarInfo(path)
            entry.type = kind
            if kind == tarfile.REGTYPE:
                entry.size = len(more)
                archive.addfile(entry, io.BytesIO(more))
            else:
                entry.linkname = more
                entry.devmajor, entry.devminor = 1, 3
                archive.addfile(entry)


def patched(name, text, change, source="good.zip"):
    with open(os.path.join(OUT, source), "rb") as file:
        data = bytearray(file.read())
    with open(named(name, text), "wb") as file:
        file.write(change(data))


REFUSED = "has an entry"
# Out of the folder.
zipped("zip-dotdot.zip", REFUSED, (UP, b"x"))
zipped("zip-dotdot-inside.zip", REFUSED, ("a/../../" + CANARY.lstrip("/"), b"x"))
zipped("zip-absolute.zip", REFUSED, (CANARY, b"x"))
zipped("zip-backslash.zip", REFUSED, (UP.replace("/", "\\"), b"x"))
zipped("zip-drive.zip", REFUSED, ("C:\\canary", b"x"))
zipped("zip-dot.zip", REFUSED, ("a/./../../b", b"x"))
zipped("zip-long-name.zip", "", ("a" * 5000, b"x"))
zipped("zip-link-out.zip", "leads out of the source", (info("out", stat.S_IFLNK | 0o777), "/etc"))
zipped("zip-link-up.zip", "leads out of the source", (info("out", stat.S_IFLNK | 0o777), UP))
zipped("zip-link-then-file.zip", REFUSED, (info("out", stat.S_IFLNK | 0o777), os.path.dirname(CANARY)), ("out/" + os.path.basename(CANARY), b"x"))
zipped("zip-link-within-then-file.zip", REFUSED, ("d/x", b"x"), (info("out", stat.S_IFLNK | 0o777), "d"), ("out/y", b"x"))
zipped("zip-device.zip", "device", (info("null", stat.S_IFCHR | 0o666), b""))
zipped("zip-pipe.zip", "device, pipe or socket", (info("pipe", stat.S_IFIFO | 0o666), b""))
tarred("tar-dotdot.tgz", REFUSED, (UP, tarfile.REGTYPE, b"x"))
tarred("tar-absolute.tgz", REFUSED, (CANARY, tarfile.REGTYPE, b"x"))
tarred("tar-link-out.tgz", "leads out of the source", ("out", tarfile.SYMTYPE, "/etc/passwd"))
tarred("tar-link-then-file.tgz", REFUSED, ("out", tarfile.SYMTYPE, os.path.dirname(CANARY)), ("out/" + os.path.basename(CANARY), tarfile.REGTYPE, b"x"))
tarred("tar-hard-link.tgz", "hard link", ("passwd", tarfile.LNKTYPE, "/etc/passwd"))
tarred("tar-hard-link-within.tgz", "hard link", ("again.py", tarfile.LNKTYPE, "main.py"))
tarred("tar-character-device.tgz", "device", ("null", tarfile.CHRTYPE, ""))
tarred("tar-block-device.tgz", "device", ("disk", tarfile.BLKTYPE, ""))
tarred("tar-pipe.tgz", "device, pipe or socket", ("pipe", tarfile.FIFOTYPE, ""))
tarred("tar-sparse.tgz", "sparse", ("holes", tarfile.GNUTYPE_SPARSE, ""))
tarred("tar-long-link.tgz", REFUSED, ("out", tarfile.SYMTYPE, "../" * 300 + "etc/passwd"))

# Names twice.
with zipfile.ZipFile(named("zip-duplicate.zip", "same name"), "w") as archive:
    archive.writestr("main.py", MAIN)
    archive.writestr("requirements.txt", REQUIREMENTS)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("main.py", b"raise SystemExit\n")
tarred("tar-duplicate.tgz", "of this name already", ("main.py", tarfile.REGTYPE, b"raise SystemExit\n"))
zipped("zip-file-and-folder.zip", REFUSED, ("a", b"x"), ("a/b", b"x"))
zipped("zip-same-by-dot.zip", REFUSED, ("a/b", b"x"), ("a//b", b"y"))

# Without bound.
zipped("zip-bomb.zip", "times its size", ("zeros", bytes(64 << 20)))
zipped("zip-bombs.zip", "times its size", *[(f"zeros-{n}", bytes(8 << 20)) for n in range(8)])
with open(named("tar-bomb.tgz", "times its size"), "wb") as file:
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        entry = tarfile.TarInfo("zeros")
        entry.size = 64 << 20
        archive.addfile(entry, open("/dev/zero", "rb"))
with gzip.open(named("gzip-bomb.tgz", ""), "wb", compresslevel=9) as file:
    for _ in range(64):
        file.write(bytes(1 << 20))
zipped("zip-many.zip", "files and folders", *[(f"f{n}", b"") for n in range(20_100)])
tarred("tar-many.tgz", "files and folders", *[(f"f{n}", tarfile.REGTYPE, b"") for n in range(20_100)])
zipped("zip-deep.zip", "", ("d/" * 2000 + "x", b"x"))
zipped("zip-folders.zip", "files and folders", *[("/".join(f"{n}-{depth}" for depth in range(30)) + "/x", b"") for n in range(800)])

# Lies and damage.
zipped("good.zip", "")
MADE.pop()
patched("zip-encrypted.zip", "encrypted", lambda data: data.replace(b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0").replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\1\0"))
patched("zip-truncated.zip", "cannot be read", lambda data: data[: len(data) * 2 // 3])
patched("zip-head-only.zip", "cannot be read", lambda data: data[:40])
patched("zip-without-its-end.zip", "cannot be read", lambda data: data[:-10])
patched("zip-broken-content.zip", "cannot be read", lambda data: data[:45] + b"\xff\xff\xff" + data[48:])
zipped("named.zip", "", ("x_y.py", b"x"))
MADE.pop()
patched("zip-nul.zip", REFUSED, lambda data: data.replace(b"x_y.py", b"x\0y.py"), "named.zip")
patched("zip-no-name.zip", REFUSED, lambda data: data.replace(b"x_y.py", b"./././"), "named.zip")
patched("zip-up.zip", REFUSED, lambda data: data.replace(b"x_y.py", b".//./."), "named.zip")
patched("zip-not-utf8.zip", "", lambda data: data.replace(b"x_y.py", b"x\xffy.p/"), "named.zip")
patched("zip-with-a-prefix.zip", "", lambda data: b"#!/bin/sh\nexit 1\n" + bytes(data))


def larger(data):
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 1)
    return data


def method(data):
    for mark, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        at = data.index(mark)
        data[at + offset : at + offset + 2] = struct.pack("<H", 12)
    return data


def overlapping(data):
    # The second entry of the directory begins where the first does.
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return data


patched("zip-wrong-size.zip", "", larger)
patched("zip-unknown-method.zip", "not supported", method)
patched("zip-overlap.zip", "", overlapping)
with open(named("text.zip", "neither a zip nor a tar.gz"), "wb") as file:
    file.write(b"this is no archive\n" * 100)
open(named("empty.zip", "neither a zip nor a tar.gz"), "wb").close()
with open(named("rar.zip", "neither a zip nor a tar.gz"), "wb") as file:
    file.write(b"Rar!\x1a\x07\x01\0" + bytes(1000))
with gzip.open(named("no-tar.tgz", ""), "wb") as file:
    file.write(b"no tar in here\n" * 1000)
tarred("tar-whole.tgz", "")
MADE.pop()
patched("tar-truncated.tgz", "cannot be read", lambda data: data[: len(data) // 2], "tar-whole.tgz")
patched("tar-broken-checksum.tgz", "cannot be read", lambda data: data[:-8] + bytes(8), "tar-whole.tgz")
zipped("zip-nothing.zip", "", good=False)

json.dump(MADE, sys.stdout)
