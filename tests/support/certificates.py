"""Keys and certificates, made by openssl for a test."""

import pathlib
import subprocess


def write(folder, name, *extensions, authority=None):
    """Writes NAME.key and NAME.crt, good for two days; returns their texts.

    Args:
      folder: that they are written to.
      name: of the files, and of the subject.
      *extensions: as "subjectAltName=DNS:localhost".
      authority: the name of another pair there, which signs this one; None
        where it is signed by itself.
    """
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
    words += ["-days", "2", "-subj", f"/CN={name}"]
    words += ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    if authority:
        words += ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key"]
        extensions += ("basicConstraints=CA:FALSE",)
    for extension in extensions:
        words += ["-addext", extension]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return tuple(
        pathlib.Path(folder, f"{name}.{kind}").read_text()
        for kind in ("key", "crt")
    )
