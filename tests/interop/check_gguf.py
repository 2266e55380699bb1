#!/usr/bin/env python3
"""Reads with the `gguf` package what Tegu writes, and compares with what the package itself wrote (tests/ref/make_gguf.py).
   check_gguf.py [OUT]     OUT: the build folder; run from the root of the repository"""
import os
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGUFReader

DATA = "tests/data/gguf/"
passed = failed = 0


def check(what, good):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("differs:", what)


def content(field):
    return [bytes(np.ascontiguousarray(field.parts[i])) for i in field.data]


def compare(ours, theirs, name):
    check(name + ": keys", list(ours.fields) == list(theirs.fields))
    for key, field in theirs.fields.items():
        check(f"{name}: {key}", ours.fields[key].types == field.types and content(ours.fields[key]) == content(field))
    check(name + ": names", [t.name for t in ours.tensors] == [t.name for t in theirs.tensors])
    for a, b in zip(ours.tensors, theirs.tensors):
        check(f"{name}: {a.name}", a.tensor_type == b.tensor_type and list(a.shape) == list(b.shape) and a.data.tobytes() == b.data.tobytes())


with tempfile.TemporaryDirectory() as folder:
    subprocess.run([os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "tests/test_gguf"), folder], check=True)
    names = sorted(os.listdir(folder))
    check("files", names == ["model-0000%d-of-00003.gguf" % i for i in (1, 2, 3)] + ["types.gguf"])
    for name in names:
        compare(GGUFReader(os.path.join(folder, name)), GGUFReader(DATA + name), name)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
