// Calls an API at intervals, with an access token that it keeps fresh:
//
//   node main.mjs bcgov-jwt/creds/myapi https://myapi.example.org/
//
// VAULT_ADDR and VAULT_TOKEN configure the Vault client. Copy tokenSource into your own
// program.

import { setTimeout as sleep } from "node:timers/promises";

import newVault from "node-vault";

// tokenSource obtains the first token, keeps it fresh, and returns a function that returns
// the newest one.
async function tokenSource(creds) {
  const vault = newVault({ requestOptions: { timeout: 60_000 } });
  let token;

  // renew obtains a new token, and returns the seconds until the next one is due.
  async function renew() {
    // A lease ends with the Vault token that read it. A token that is not renewable serves
    // until it expires.
    await vault.tokenRenewSelf().catch(() => {});
    const { data, lease_duration } = await vault.read(creds);
    token = data.access_token;
    // With delivery=leased, there is no ttl: shortly before the lease ends.
    return data.ttl ?? Math.max(lease_duration * 0.9, 1);
  }

  async function keepFresh(due) {
    for (;;) {
      await sleep(due * 1000, undefined, { ref: false });
      due = await renew().catch((error) => {
        // The old token is valid for the margin.
        console.error(`no new token, retrying in 5 s: ${error.message}`);
        return 5;
      });
    }
  }

  keepFresh(await renew());
  return () => token;
}

const [creds, url, seconds = 10] = process.argv.slice(2);
const token = await tokenSource(creds);
for (;;) {
  try {
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${token()}` },
      redirect: "manual", // a redirect could send the token to another server
      signal: AbortSignal.timeout(30_000),
    });
    await response.body?.cancel();
    console.log(new Date().toISOString(), response.status, response.statusText);
  } catch (error) {
    console.error(error.message, error.cause?.message ?? "");
  }
  await sleep(seconds * 1000);
}
