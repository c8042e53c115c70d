"""Checks that a transaction is in the sealed ledger, with nothing but the standard library and the public key.

    python verify_proof.py proof.json keys.json

`proof.json` is the object below `proof` in the answer to
{ node(id: "txn_...") { ... on Activity { proof { leaf header keyId signature path { side hash } } } } },
`keys.json` what the gateway serves at /ledger/keys. Prints the transaction's id and content and exits with 0
if it is in a block that the gateway signed, else says what is wrong and exits with 1. Compare the id with
the one that was asked for: another transaction's proof is a proof, too.
"""

import base64
import hashlib
import json
import sys

# The curve P-256 (FIPS 186-5, SP 800-186): y^2 = x^3 - 3x + b over the field of P, with a base point G of order N.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def add(p, q):
    """The sum of two points; None is the point at infinity."""
    if p is None or q is None:
        return p or q
    if p[0] == q[0] and (p[1] + q[1]) % P == 0:
        return None
    slope = (3 * p[0] ** 2 - 3) * pow(2 * p[1], -1, P) if p == q else (q[1] - p[1]) * pow(q[0] - p[0], -1, P)
    x = (slope**2 - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P


def multiply(p, k):
    """A point added to itself k times."""
    found = None
    while k:
        if k & 1:
            found = add(found, p)
        p, k = add(p, p), k >> 1
    return found


def is_signed(header, signature, key):
    """ECDSA with SHA-256 on P-256 (RFC 7518, section 3.4)."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not (0 < r < N and 0 < s < N):
        return False
    public = tuple(int.from_bytes(base64.urlsafe_b64decode(key[c] + "=="), "big") for c in "xy")
    digest = int.from_bytes(hashlib.sha256(header).digest(), "big")
    w = pow(s, -1, N)
    point = add(multiply(G, digest * w % N), multiply(public, r * w % N))
    return point is not None and point[0] % N == r


def check(proof, jwks):
    """Why a proof does not hold; None if it does."""
    climbed = hashlib.sha256(b"\x00" + proof["leaf"].encode()).digest()
    for step in proof["path"]:
        sibling = bytes.fromhex(step["hash"])
        left, right = (sibling, climbed) if step["side"] == "left" else (climbed, sibling)
        climbed = hashlib.sha256(b"\x01" + left + right).digest()
    if climbed.hex() != json.loads(proof["header"])["merkle_root"]:
        return "the transaction does not lead to the block's root"
    key = next((k for k in jwks["keys"] if k["kid"] == proof["keyId"]), None)
    if key is None:
        return f"there is no public key {proof['keyId']}"
    if not is_signed(proof["header"].encode(), bytes.fromhex(proof["signature"]), key):
        return "the block is not signed with this key"
    return None


def outside(transaction):
    """The id as the API shows it: the UUID's 128 bits, five at a time (TypeID)."""
    number, digits = int(transaction.replace("-", ""), 16), "0123456789abcdefghjkmnpqrstvwxyz"
    return "txn_" + "".join(digits[number >> shift & 31] for shift in range(125, -1, -5))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Usage: python verify_proof.py proof.json keys.json")
    with open(sys.argv[1]) as proof_file, open(sys.argv[2]) as jwks_file:
        given, keys = json.load(proof_file), json.load(jwks_file)
    if not isinstance(given, dict) or not {"leaf", "header", "keyId", "signature", "path"} <= given.keys():
        sys.exit(f"{sys.argv[1]} is not the object below `proof`, with leaf, header, keyId, signature and path.")
    fault = check(given, keys)
    if fault:
        sys.exit(f"NOT PROVEN: {fault}.")
    content = json.loads(given["leaf"])
    print(f"Proven. Block {json.loads(given['header'])['height']} holds {outside(content['transaction'])}: {given['leaf']}")
