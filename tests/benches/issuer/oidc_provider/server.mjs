// Runs oidc-provider as it is published, on Redis, with one process for each core: the peer of the benchmark.
//
// What it is told comes in the environment: REDIS_URL, REFRESH_TOKENS. Once it listens, it writes one line of JSON to
// the file READY_FILE: its port, the secret of its client, and so many refresh tokens.

import cluster from 'node:cluster';
import { randomBytes } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';
import { createClient } from 'redis';

const RESOURCE = 'urn:bench:api';
const SCOPE = 'read';
const CLIENT = 'bench';
const ISSUER = 'http://peer.test';

/** What a row lives by: tokens of a grant end with it. */
const GRANTABLE = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken', 'DeviceCode']);

const redis = await createClient({ url: process.env.REDIS_URL }).connect();

/** The adapter that the provider's documentation describes, on Redis: one hash for each row, one list for each grant. */
class RedisAdapter {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload, expiresIn) {
    const key = this.key(id);
    const change = redis.multi().hSet(key, 'payload', JSON.stringify(payload));
    if (expiresIn) change.expire(key, expiresIn);
    if (GRANTABLE.has(this.model) && payload.grantId) {
      const grant = `grant:${payload.grantId}`;
      change.rPush(grant, key);
      if (expiresIn) change.expire(grant, expiresIn);
    }
    await change.exec();
  }

  async find(id) {
    const { payload, consumed } = await redis.hGetAll(this.key(id));
    if (!payload) return undefined;
    return consumed ? { ...JSON.parse(payload), consumed: Number(consumed) } : JSON.parse(payload);
  }

  async consume(id) {
    await redis.hSet(this.key(id), 'consumed', Math.floor(Date.now() / 1000));
  }

  async destroy(id) {
    await redis.del(this.key(id));
  }

  async revokeByGrantId(grantId) {
    const grant = `grant:${grantId}`;
    await redis.del([...(await redis.lRange(grant, 0, -1)), grant]);
  }
}

function provider({ key, secret }) {
  const made = new Provider(ISSUER, {
    adapter: RedisAdapter,
    jwks: { keys: [key] },
    clients: [
      {
        client_id: CLIENT,
        client_secret: secret,
        token_endpoint_auth_method: 'client_secret_basic',
        grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
        redirect_uris: ['https://peer.test/back'],
        id_token_signed_response_alg: key.alg,
      },
    ],
    scopes: [SCOPE, 'openid', 'offline_access'],
    enabledJWA: { idTokenSigningAlgValues: [key.alg] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    rotateRefreshToken: true,
    ttl: { AccessToken: 900, ClientCredentials: 900, Grant: 86_400, RefreshToken: 86_400 },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: SCOPE,
          audience: 'api',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 900,
          jwt: { sign: { alg: key.alg } },
        }),
      },
    },
  });
  made.on('server_error', (_, error) => console.error(error));
  made.on('grant.error', (_, error) => console.error(error.error_description ?? error));
  return made;
}

/** A refresh token as one would be after a login. */
async function refreshToken(made) {
  const client = await made.Client.find(CLIENT);
  const grant = new made.Grant({ accountId: 'somebody', clientId: CLIENT });
  grant.addResourceScope(RESOURCE, SCOPE);
  const grantId = await grant.save();
  const token = new made.RefreshToken({
    accountId: 'somebody',
    client,
    grantId,
    gty: 'authorization_code',
    resource: RESOURCE,
    scope: SCOPE,
  });
  return token.save();
}

if (cluster.isPrimary) {
  const { privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  const key = { ...(await exportJWK(privateKey)), alg: 'EdDSA', use: 'sig', kid: 'bench' };
  const told = { key, secret: randomBytes(32).toString('base64url') };
  const made = provider(told);
  const refreshTokens = [];
  for (let count = Number(process.env.REFRESH_TOKENS); count > 0; count -= 1) {
    refreshTokens.push(await refreshToken(made));
  }
  const workers = availableParallelism();
  let listening = 0;
  cluster.on('listening', (_, { port }) => {
    listening += 1;
    if (listening < workers) return;
    const ready = process.env.READY_FILE;
    writeFileSync(`${ready}.tmp`, JSON.stringify({ port, workers, secret: told.secret, refreshTokens }));
    renameSync(`${ready}.tmp`, ready);
  });
  cluster.on('exit', (worker, code) => {
    console.error(`worker ${worker.id} ended with ${code}`);
    process.exit(1);
  });
  for (let count = 0; count < workers; count += 1) {
    cluster.fork({ TOLD: JSON.stringify(told) });
  }
} else {
  const made = provider(JSON.parse(process.env.TOLD));
  // Port 0 is the same one for all workers.
  made.listen(0, '127.0.0.1');
}
