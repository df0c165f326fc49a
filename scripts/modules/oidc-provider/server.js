// Runs panva's oidc-provider on 127.0.0.1 for the integration tests: the client credentials grant,
// private_key_jwt with every algorithm, introspection and revocation. Everything is in memory.
//
// Usage: node server.js PORT
//
// ISSUER is the issuer identifier; it differs from the server's own address behind a proxy. METHODS
// and ALGORITHMS are those of clients' authentication, separated by spaces.
// PUT /clients registers the client in its body (RFC 7591), or replaces the one of its client_id.
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

import Provider from 'oidc-provider';

const port = Number(process.argv[2]);
const issuer = process.env.ISSUER || `http://127.0.0.1:${port}`;
const methods = process.env.METHODS || 'private_key_jwt client_secret_basic';
const algorithms = process.env.ALGORITHMS
  || 'RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519';
const entries = new Map();

// Store replaces the provider's own in-memory adapter, which forgets all but 1000 entries.
class Store {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async find(id) {
    return entries.get(this.key(id));
  }

  async upsert(id, payload) {
    entries.set(this.key(id), payload);
  }

  async destroy(id) {
    entries.delete(this.key(id));
  }
}

const provider = new Provider(issuer, {
  adapter: Store,
  clientAuthMethods: methods.split(' '),
  enabledJWA: { clientAuthSigningAlgValues: algorithms.split(' ') },
  extraClientMetadata: { properties: ['access_token_ttl'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  // The default refuses private addresses, and so the key sets of the tests.
  fetch: (url, options) => {
    delete options.dispatcher;
    return fetch(url, options);
  },
  scopes: ['openid', 'read', 'write'],
  ttl: { ClientCredentials: (_ctx, _token, client) => client.access_token_ttl ?? 300 },
});

// put has the provider validate the client before it is stored.
async function put(request, response) {
  try {
    const client = new provider.Client(JSON.parse(await text(request)));
    await new Store('Client').upsert(client.clientId, client.metadata());
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(400).end(`${error.message}: ${error.error_description ?? ''}`);
  }
}

const handle = provider.callback();
createServer((request, response) => {
  if (request.method === 'PUT' && request.url === '/clients') put(request, response);
  else handle(request, response);
}).listen(port, '127.0.0.1');
