"""What a program that uses authlib, as it is, can do with an issuer.

Reads parameters as one JSON object from standard input, writes one JSON object a line for each step, and ends with 1 at
the first step that is not as expected, with the reason on standard error.

    issuer         the issuer's URL
    base_url       where it really listens, if that is elsewhere
    audience       the `aud` of its access tokens
    scope          a scope that each client may have, and the user too
    secret_client  {id, secret}
    key_clients    [{id, algorithm, kid, private_key}], the key as PKCS #8 PEM
    login          {client_id, refresh_token} of a public client
"""

import json
import sys
import uuid
import warnings
from urllib.parse import urlsplit

from authlib.deprecate import AuthlibDeprecationWarning

# Its JOSE half is about to move to another package; until then this is what programs use.
warnings.simplefilter("ignore", AuthlibDeprecationWarning)

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from joserfc.jwk import import_key
from requests.adapters import HTTPAdapter

KEY_TYPES = {"EdDSA": "OKP", "ES256": "EC", "RS256": "RSA"}


class Unexpected(Exception):
    pass


def ensure(holds, what):
    if not holds:
        raise Unexpected(what)


class Elsewhere(HTTPAdapter):
    """Sends what is meant for the issuer to where it listens."""

    def __init__(self, there, here):
        super().__init__()
        self.there, self.here = there, here

    def send(self, request, **options):
        request.url = self.here + request.url[len(self.there):]
        return super().send(request, **options)


def origin(url):
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class Issuer:
    def __init__(self, parameters):
        self.parameters = parameters
        self.url = parameters["issuer"]
        self.scope = parameters["scope"]
        self.metadata = None

    def reach(self, session):
        there = origin(self.url)
        here = origin(self.parameters.get("base_url") or self.url)
        session.mount(there, Elsewhere(there, here))
        return session

    def get(self, url):
        answer = self.reach(requests.Session()).get(url, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def session(self, client_id, secret=None, method=None, assertion=None, **more):
        more.setdefault("scope", self.scope)
        session = OAuth2Session(
            client_id,
            secret,
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
            default_timeout=10,
            **more,
        )
        if assertion:
            session.register_client_auth_method(assertion)
        return self.reach(session)

    def key_session(self, client, **options):
        key = import_key(client["private_key"], KEY_TYPES[client["algorithm"]])
        headers = {"kid": client["kid"]} if options.pop("with_kid", True) else None
        token_endpoint = options.pop("audience", self.metadata["token_endpoint"])
        assertion = PrivateKeyJWT(token_endpoint, headers=headers, alg=client["algorithm"], **options)
        return self.session(client["id"], key, "private_key_jwt", assertion)

    def token(self, session, **more):
        return session.fetch_token(self.metadata["token_endpoint"], grant_type="client_credentials", **more)

    def checked(self, token, client_id):
        """The claims of an access token that a resource server would admit."""
        ensure(token["token_type"] == "Bearer", f"token_type is {token['token_type']}")
        ensure(0 < token["expires_in"] <= 86_400, f"expires_in is {token['expires_in']}")
        ensure(self.scope in token["scope"].split(), f"scope is {token['scope']}")
        keys = JsonWebKey.import_key_set(self.get(self.metadata["jwks_uri"]))
        expected = {
            "iss": {"essential": True, "value": self.url},
            "aud": {"essential": True, "value": self.parameters["audience"]},
            "client_id": {"essential": True, "value": client_id},
            **{name: {"essential": True} for name in ("sub", "exp", "iat", "jti")},
        }
        claims = JsonWebToken(list(KEY_TYPES)).decode(token["access_token"], keys, claims_options=expected)
        claims.validate()
        ensure(claims.header["typ"] == "at+jwt", f"typ is {claims.header['typ']}")
        return claims

    def refuses(self, code, action):
        try:
            answer = action()
        except OAuthError as error:
            ensure(error.error == code, f"refused with {error.error} instead of {code}")
            return {"error": error.error, "description": error.description}
        raise Unexpected(f"not refused with {code}, but given {sorted(answer)}")


def metadata(issuer):
    url = get_well_known_url(issuer.url, external=True)
    document = AuthorizationServerMetadata(issuer.get(url))
    # What authlib checks of a document, but for the two members that need what this issuer has not: a browser to send
    # somewhere, and, in a test, TLS.
    checks = set(document.REGISTRY_KEYS) - {"authorization_endpoint", "response_types_supported"}
    if not issuer.url.startswith("https://"):
        checks -= {name for name in checks if name == "issuer" or name.endswith(("_endpoint", "_uri"))}
    for name in sorted(checks):
        document.__getattribute__(f"validate_{name}")()
    ensure(document["issuer"] == issuer.url, f"issuer is {document['issuer']}")
    issuer.metadata = document
    return {"url": url, "members": sorted(document)}


def secret_in_header(issuer):
    client = issuer.parameters["secret_client"]
    token = issuer.token(issuer.session(client["id"], client["secret"], "client_secret_basic"))
    ensure("refresh_token" not in token, "there is a refresh token")
    return dict(issuer.checked(token, client["id"]))


def secret_in_form(issuer):
    client = issuer.parameters["secret_client"]
    token = issuer.token(issuer.session(client["id"], client["secret"], "client_secret_post"))
    return dict(issuer.checked(token, client["id"]))


def private_keys(issuer):
    for client in issuer.parameters["key_clients"]:
        # As authlib has it when nothing is said: no `kid`, an hour until `exp`, the token endpoint for an audience.
        for options in ({}, {"with_kid": False}, {"audience": issuer.url}):
            issuer.checked(issuer.token(issuer.key_session(client, **options)), client["id"])
    return {"algorithms": [client["algorithm"] for client in issuer.parameters["key_clients"]]}


def replayed_assertion(issuer):
    client = issuer.parameters["key_clients"][0]
    session = issuer.key_session(client, claims={"jti": str(uuid.uuid4())})
    issuer.checked(issuer.token(session), client["id"])
    return issuer.refuses("invalid_client", lambda: issuer.token(session))


def wrong_secret(issuer):
    client = issuer.parameters["secret_client"]
    wrong = client["secret"][:-1] + ("a" if client["secret"][-1] != "a" else "b")
    for method in ("client_secret_basic", "client_secret_post"):
        session = issuer.session(client["id"], wrong, method)
        refused = issuer.refuses("invalid_client", lambda: issuer.token(session))
    return refused


def scope_that_cannot_be_had(issuer):
    client = issuer.parameters["secret_client"]
    session = issuer.session(client["id"], client["secret"], scope="nobody:has:this")
    return issuer.refuses("invalid_scope", lambda: issuer.token(session))


def introspection_and_revocation(issuer):
    client = issuer.parameters["secret_client"]
    session = issuer.session(client["id"], client["secret"], "client_secret_basic")
    token = issuer.token(session)["access_token"]

    def introspect(token):
        answer = session.introspect_token(issuer.metadata["introspection_endpoint"], token=token)
        answer.raise_for_status()
        return answer.json()

    told = introspect(token)
    ensure(told["active"] is True, "a new token is not active")
    ensure(told["client_id"] == client["id"], f"client_id is {told['client_id']}")
    ensure(introspect("garbage") == {"active": False}, "garbage is told of")
    for _ in range(2):
        answer = session.revoke_token(
            issuer.metadata["revocation_endpoint"], token=token, token_type_hint="access_token"
        )
        ensure(answer.status_code == 200, f"revocation is answered with {answer.status_code}")
    ensure(introspect(token) == {"active": False}, "a revoked token is told of")
    return told


def refresh(issuer):
    login = issuer.parameters["login"]
    session = issuer.session(login["client_id"], method="none", scope=None)
    first = login["refresh_token"]
    token = session.refresh_token(issuer.metadata["token_endpoint"], refresh_token=first)
    ensure(token["refresh_token"] != first, "the refresh token is the same")
    claims = issuer.checked(token, login["client_id"])
    narrow = session.refresh_token(
        issuer.metadata["token_endpoint"], refresh_token=token["refresh_token"], scope=issuer.scope
    )
    ensure(narrow["scope"] == issuer.scope, f"scope is {narrow['scope']}")
    last = narrow["refresh_token"]
    answer = session.revoke_token(
        issuer.metadata["revocation_endpoint"], token=last, token_type_hint="refresh_token"
    )
    ensure(answer.status_code == 200, f"revocation is answered with {answer.status_code}")
    issuer.refuses(
        "invalid_grant",
        lambda: session.refresh_token(issuer.metadata["token_endpoint"], refresh_token=last),
    )
    return dict(claims)


STEPS = [
    metadata,
    secret_in_header,
    secret_in_form,
    private_keys,
    replayed_assertion,
    wrong_secret,
    scope_that_cannot_be_had,
    introspection_and_revocation,
    refresh,
]


def main():
    issuer = Issuer(json.load(sys.stdin))
    for step in STEPS:
        try:
            result = step(issuer)
        except Exception as error:
            print(f"{step.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        print(json.dumps({"step": step.__name__, "result": result}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
