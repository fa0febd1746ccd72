"""Checks the keys and sessions that clients present, and begins and ends sessions."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import cast

from facerec.api_keys import ApiKey, Standing, Token, is_key_id, parse_token
from facerec.errors import Transient
from facerec.ports import ApiKeys, Sessions
from facerec.session_records import begin_session, token_hash
from facerec.settings.tiers import WebSettings
from facerec.settings.values import parse_rate
from facerec.web.auth.claims import Claim, claim_of, claim_of_session
from facerec.web.auth.denials import NO_SUCH_KEY, Denial, credentials_unreadable, too_many_failures
from facerec.web.auth.rate_limit import RateLimiter
from facerec.web.auth.store_cache import DOUBTED_SECONDS, KeyCache, SessionCache


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that has begun."""

    key: ApiKey
    token: str = field(repr=False)
    """What the browser keeps."""
    length: timedelta


class Credentials:
    """Finds the keys of clients; safe for many threads. `network` is where a client comes from, for its failures."""

    def __init__(
        self,
        settings: WebSettings,
        keys: ApiKeys,
        sessions: Sessions,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._keys = KeyCache(keys, clock=clock)
        self._stored_sessions = sessions
        self._sessions = SessionCache(sessions, clock=clock)
        self._failures = RateLimiter(parse_rate(settings.auth_failures), clock=clock)
        self._now = now
        self._session_length = timedelta(hours=settings.session_hours)

    def holder(self, claim: Claim, network: str) -> ApiKey | Denial:
        """Return the key that a client holds, or a denial."""
        try:
            return self._holder(claim, network)
        except Transient:
            return credentials_unreadable()

    def holder_of_session(self, token: str, network: str) -> ApiKey | Denial:
        """Return the key of a browser's session, or a denial; an unknown token counts as a wrong key."""
        hashed = token_hash(token)
        if not self._sessions.knows(hashed) and (wait := self._failures.wait_seconds(network)):
            return too_many_failures(wait)
        try:
            session = self._sessions.find(hashed)
            holder = self._holder(claim_of_session(session, token), network)
        except Transient:
            return credentials_unreadable()
        if isinstance(holder, Denial) and holder.status is HTTPStatus.UNAUTHORIZED:
            return replace(holder, sentence="your session has ended: sign in again")
        return holder

    def sign_in(self, text: str, network: str) -> SignedIn | Denial:
        """Begin a session with a key as a person enters it; returns it, or a denial."""
        presented = parse_token(text)
        holder = self.holder(claim_of(presented), network)
        if isinstance(holder, Denial):
            return self._explained(holder, text if presented is None else presented.key_id)
        key = cast("Token", presented)  # a text that is no key has no holder
        session, token = begin_session(key, now=self._now(), length=self._session_length)
        try:
            self._stored_sessions.add(session)
        except Transient:
            return credentials_unreadable()
        return SignedIn(holder, token, self._session_length)

    def sign_out(self, token: str) -> None:
        """End a session; other processes follow within seconds. Raises `Transient` if the store cannot be reached."""
        self._stored_sessions.remove(token_hash(token))
        self._sessions.forget(token_hash(token))

    def _holder(self, claim: Claim, network: str) -> ApiKey | Denial:
        # A client that guesses is denied before its key is read. Its guesses do not block the keys of others.
        known = claim.key_id is not None and (not claim.guessed or self._keys.knows(claim.key_id))
        if not known and (wait := self._failures.wait_seconds(network)):
            return too_many_failures(wait)
        key, standing = None, Standing.WRONG
        if claim.key_id is not None:
            key = self._keys.find(claim.key_id)
            standing = self._standing(key, claim)
            if key is not None and standing is Standing.WRONG:
                # It may have been rotated since it was read.
                key = self._keys.find(claim.key_id, DOUBTED_SECONDS)
                standing = self._standing(key, claim)
        if key is not None and standing is Standing.GOOD:
            return key
        # A client with the right secret of an expired or revoked key does not guess.
        if standing is Standing.WRONG and claim.guessed and (wait := self._failures.take(network)):
            return too_many_failures(wait)
        sentence = {
            Standing.EXPIRED: "this API key has expired: ask the operator for another",
            Standing.REVOKED: "this API key has been revoked: ask the operator for another",
            Standing.STALE: "the signature has expired: set the clock of this machine, and sign the request again",
        }.get(standing, f"this API key is wrong: {claim.hint}")
        # The id of a key is no secret: a client of AWS is told which half of its credentials is wrong.
        subject = "key" if key is None or standing in {Standing.EXPIRED, Standing.REVOKED} else claim.proof
        return Denial(
            HTTPStatus.UNAUTHORIZED,
            f"{standing}_{subject}",
            sentence,
            NO_SUCH_KEY,
            key_id=None if key is None else key.key_id,
        )

    def _standing(self, key: ApiKey | None, claim: Claim) -> Standing:
        return Standing.WRONG if key is None else claim.check(key, self._now())

    def _explained(self, denial: Denial, key_id: str) -> Denial:
        """Return the denial of a sign-in, which says it if the key is one that signs requests."""
        if denial.status is not HTTPStatus.UNAUTHORIZED or not is_key_id(key_id):
            return denial
        try:
            key = self._keys.find(key_id)
        except Transient:
            return denial
        if key is None or not key.signs:
            return denial
        sentence = "this key signs the requests of AWS clients, and cannot sign in: ask the operator for one that can"
        return replace(denial, sentence=sentence, key_id=key.key_id)
