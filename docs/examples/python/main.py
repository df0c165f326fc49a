"""Calls an API at intervals, with an access token that it keeps fresh:

    python main.py bcgov-jwt/creds/myapi https://myapi.example.org/

VAULT_ADDR and VAULT_TOKEN configure the Vault client. Copy TokenSource into your own
program.
"""

import contextlib
import logging
import sys
import threading
import time

import hvac
import requests


class TokenSource(requests.auth.AuthBase):
    """Sends the newest access token with each request. It is safe for concurrent use."""

    def __init__(self, creds):
        """Obtains the first token, and keeps it fresh."""
        self.vault = hvac.Client()
        self.creds = creds
        threading.Thread(target=self.keep_fresh, args=[self.renew()], daemon=True).start()

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def keep_fresh(self, due):
        while True:
            time.sleep(due)
            try:
                due = self.renew()
            except Exception as error:  # the old token is valid for the margin
                due = 5
                logging.warning("no new token, retrying in %s s: %s", due, error)

    def renew(self):
        """Obtains a new token, and returns the seconds until the next one is due."""
        # A lease ends with the Vault token that read it. A token that is not renewable
        # serves until it expires.
        with contextlib.suppress(hvac.exceptions.VaultError):
            self.vault.auth.token.renew_self()
        secret = self.vault.read(self.creds)
        if secret is None:
            raise LookupError(f"no access token at {self.creds}")
        self.token = secret["data"]["access_token"]
        # With delivery=leased, there is no ttl: shortly before the lease ends.
        return secret["data"].get("ttl") or max(secret["lease_duration"] * 0.9, 1)


def main(creds, url, seconds="10"):
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    with requests.Session() as api:
        api.auth = TokenSource(creds)
        while True:
            try:
                # A redirect could send the token to another server.
                response = api.get(url, timeout=30, allow_redirects=False)
                logging.info("%s %s", response.status_code, response.reason)
            except requests.RequestException as error:
                logging.warning("%s", error)
            time.sleep(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
