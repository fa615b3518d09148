"""A whole folder closed: SHA256SUMS of every file in it, and a signature over all of them.

Who rewrites a file can rewrite SHA256SUMS too. That shows beside a copy of SHA256SUMS' own digest that lies elsewhere,
and by the signature, which nobody makes without the private key. The signature leaves SHA256SUMS out, which says
nothing of its own; SHA256SUMS has the signature's digest in turn, so a flipped byte in either is found without any key.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from advanchor.core import BadInput
from advanchor.store import SUMS

SIGNATURE = "audit.sig"
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def files(folder: Path) -> list[str]:
    """Every file of a folder but SHA256SUMS, with `/` between the parts of its name."""
    every = (
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir() or file.is_symlink()
    )
    return sorted(name for name in every if name != SUMS)


def sums(folder: Path) -> str:
    """What SHA256SUMS is to say, in the format of sha256sum."""
    return "".join(f"{digest(folder / name)}  {name}\n" for name in files(folder))


def broken(folder: Path) -> list[str]:
    """A sentence for each file that is not what SHA256SUMS says, is missing there or here, or is a link."""
    if not (folder / SUMS).is_file():
        raise BadInput(f"{folder} has no {SUMS}, so it is no record of `advanchor audit`: name the folder that is one.")
    text = (folder / SUMS).read_bytes().decode(errors="replace")  # with its line ends as they are
    known: dict[str, str] = {}
    wrong = []
    for n, line in enumerate(text.splitlines(), 1):
        found = LINE.fullmatch(line)
        if found is None:
            wrong.append(f"{SUMS}: line {n} is no digest with a name")
        elif found[2] in known:
            wrong.append(f"{SUMS}: {found[2]} stands there twice")
        else:
            known[found[2]] = found[1]
    there = files(folder)
    for name in sorted({*there, *known}):
        if name not in there:
            wrong.append(f"{name} is gone")
        elif (folder / name).is_symlink():
            wrong.append(f"{name} is a link: a record holds its files itself")
        elif name not in known:
            wrong.append(f"{name} is no file of this record")
        elif digest(folder / name) != known[name]:
            wrong.append(f"{name} is not what it was")
    if not wrong and text != sums(folder):
        wrong.append(f"{SUMS} is not written as it was")
    return wrong


def signing() -> Any:
    """OpenSSF's model-signing.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import model_signing
    except ImportError:
        raise BadInput("signatures need model-signing: pip install 'advanchor[sign]'.") from None
    return model_signing


def hashing() -> Any:
    """Which files a signature is over: all but itself and SHA256SUMS."""
    config = signing().hashing.Config().use_file_serialization()
    return config.set_ignored_paths(paths=[SUMS, SIGNATURE], ignore_git_paths=False)


def signer(key: Path) -> Any:
    """What signs with a private key.

    Raises:
        BadInput: model-signing is not installed; the file is no private key on an elliptic curve, or has a password.
    """
    library = signing()
    try:
        return library.signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashing())
    except OSError as error:
        raise BadInput(f"--sign={key} cannot be read ({error.strerror}): name a private key.") from None
    except (ValueError, TypeError, AttributeError):  # as cryptography says: no PEM, a password, another kind of key
        make = "`openssl ecparam -name prime256v1 -genkey -noout -out private.pem` makes one"
        raise BadInput(
            f"--sign={key} is no private key on an elliptic curve, in PEM and without a password: {make}."
        ) from None


def sign(folder: Path, by: Any) -> None:
    """Write the signature of a folder, by what `signer` returned."""
    by.sign(folder, folder / SIGNATURE)


def forged(folder: Path, key: Path) -> str:
    """Why the signature of a folder does not hold for a public key; "" if it does.

    Raises:
        BadInput: model-signing is not installed, or the file is no public key.
    """
    library = signing()
    try:
        by = library.verifying.Config().use_elliptic_key_verifier(public_key=key)
    except OSError as error:
        raise BadInput(f"--key={key} cannot be read ({error.strerror}): name a public key.") from None
    except (ValueError, TypeError, AttributeError):
        make = "`openssl ec -in private.pem -pubout -out public.pem` makes it from the private one"
        raise BadInput(f"--key={key} is no public key on an elliptic curve, in PEM: {make}.") from None
    if not (folder / SIGNATURE).is_file():
        return f"there is no {SIGNATURE}: nobody signed this record"
    try:
        by.set_hashing_config(hashing()).verify(folder, folder / SIGNATURE)
    except Exception:  # whatever a false signature breaks: JSON, base64, the curve, the list of files
        return f"{SIGNATURE} is not this key's signature of these files"
    return ""
