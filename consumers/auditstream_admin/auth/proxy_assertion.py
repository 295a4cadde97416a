"""Sign-in by a proxy: a JWT in a request header, checked for signature, issuer, audience and time."""

import contextlib
import json
import threading
import time
from pathlib import Path

import httpx2
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from auditstream_admin.auth.viewer import Viewer, viewer_of_claims
from auditstream_admin.settings import SIGNATURE_ALGORITHMS, AdminSettings
from auditstream_schemas.errors import DeniedError, SettingsError, StoreUnavailableError

_TIMEOUT_SECONDS = 10.0
_LEEWAY_SECONDS = 30
_KEYS_SECONDS = 3600
_RETRY_SECONDS = 60
"""If a key id is unknown, the keys are fetched again, but not more often than this."""

_PublicKey = RSAKey | ECKey | OKPKey


class ProxyAssertions:
    """Validates the assertions of the proxy. Safe to share between threads.

    Attributes:
        header: Name of the request header with the assertion.
    """

    def __init__(self, settings: AdminSettings) -> None:
        """Read the keys, if they are in a file.

        Raises:
            SettingsError: The file cannot be read, contains no public key, or an algorithm does not use public keys.
        """
        self.header = settings.admin_proxy_header
        self._settings = settings
        self._location = settings.admin_proxy_keys
        self._algorithms = sorted({name.strip() for name in settings.admin_proxy_algorithms.split(",") if name.strip()})
        if not self._algorithms or not set(self._algorithms) <= SIGNATURE_ALGORITHMS:
            raise SettingsError(
                f"AUDITSTREAM_ADMIN_PROXY_ALGORITHMS: was {settings.admin_proxy_algorithms!r}; "
                f"write one or more of {', '.join(sorted(SIGNATURE_ALGORITHMS))}"
            )
        self._registry = JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": settings.admin_proxy_issuer},
            aud={"essential": True, "value": settings.admin_proxy_audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._lock = threading.Lock()
        self._is_remote = self._location.startswith(("https://", "http://"))
        self._keys: KeySet | _PublicKey = KeySet([]) if self._is_remote else _from_file(Path(self._location))
        self._read_at: float | None = None

    def viewer(self, text: str) -> Viewer:
        """The viewer of an assertion; blocks if the keys must be fetched.

        Raises:
            DeniedError: The assertion is not valid, or its claims give no role.
            StoreUnavailableError: The keys cannot be fetched.
        """
        try:
            try:
                token = jwt.decode(text, self._current_keys(_KEYS_SECONDS), algorithms=self._algorithms)
            except InvalidKeyIdError:
                token = jwt.decode(text, self._current_keys(_RETRY_SECONDS), algorithms=self._algorithms)
            self._registry.validate(token.claims)
        except (JoseError, ValueError) as error:
            raise DeniedError(f"the assertion of the proxy is not valid: {error}") from error
        return viewer_of_claims(token.claims, self._settings)

    def _current_keys(self, seconds: float) -> KeySet | _PublicKey:
        """The keys, fetched again if they are older than ``seconds``."""
        with self._lock:
            now = time.monotonic()
            if self._is_remote and (self._read_at is None or now >= self._read_at + seconds):
                try:
                    answer = httpx2.get(self._location, timeout=_TIMEOUT_SECONDS)
                    answer.raise_for_status()
                    self._keys = KeySet.import_key_set(answer.json())
                except (httpx2.HTTPError, httpx2.InvalidURL, KeyError, ValueError, JoseError) as error:
                    raise StoreUnavailableError(
                        f"the keys of the proxy cannot be fetched: {type(error).__name__}; try again"
                    ) from error
                self._read_at = now
            return self._keys


def _from_file(path: Path) -> KeySet | _PublicKey:
    try:
        text = path.read_text("utf-8")
        if text.lstrip().startswith("{"):
            return KeySet.import_key_set(json.loads(text))
    except OSError as error:
        raise SettingsError(f"cannot read AUDITSTREAM_ADMIN_PROXY_KEYS {path}: {error.strerror}") from error
    except (JoseError, ValueError, KeyError, TypeError):
        text = ""
    for key_class in (RSAKey, ECKey, OKPKey):
        with contextlib.suppress(JoseError, ValueError, TypeError):
            return key_class.import_key(text)
    raise SettingsError(
        f"AUDITSTREAM_ADMIN_PROXY_KEYS {path}: write the path of a JWK set or of a public key in PEM format"
    )
