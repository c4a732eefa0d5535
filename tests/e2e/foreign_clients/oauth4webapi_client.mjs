// What a program that uses oauth4webapi, as it is, can do with an issuer.
//
// Reads parameters as one JSON object from standard input, writes one JSON object a line for each step, and ends with 1 at
// the first step that is not as expected, with the reason on standard error. The parameters are those of authlib_client.py.

import { strict as assert } from 'node:assert'
import { text } from 'node:stream/consumers'
import * as oauth from 'oauth4webapi'

const parameters = JSON.parse(await text(process.stdin))
const issuer = new URL(parameters.issuer)
const { scope, secret_client: secretClient, key_clients: keyClients, login } = parameters

const options = {
  // Sends what is meant for the issuer to where it listens.
  [oauth.customFetch]: (url, init) => {
    const base = parameters.base_url ?? parameters.issuer
    assert.ok(url.startsWith(issuer.origin), `${url} is not the issuer's`)
    return fetch(new URL(base).origin + url.slice(issuer.origin.length), { ...init, signal: AbortSignal.timeout(10_000) })
  },
  // A test has no TLS; with an issuer of https, this asks for nothing.
  [oauth.allowInsecureRequests]: issuer.protocol === 'http:',
}

let server

async function privateKey({ algorithm, private_key: pem }) {
  const der = Buffer.from(pem.replace(/-----[^-]+-----/g, ''), 'base64')
  const kind = {
    EdDSA: { name: 'Ed25519' },
    ES256: { name: 'ECDSA', namedCurve: 'P-256' },
    RS256: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  }[algorithm]
  return crypto.subtle.importKey('pkcs8', der, kind, false, ['sign'])
}

async function clientCredentials(client, authentication, more = { scope }) {
  const request = oauth.clientCredentialsGrantRequest(server, client, authentication, more, options)
  return oauth.processClientCredentialsResponse(server, client, await request)
}

// The claims of an access token that a resource server would admit.
async function checked(token, client) {
  assert.equal(token.token_type, 'bearer')
  assert.ok(token.expires_in > 0 && token.expires_in <= 86_400, `expires_in is ${token.expires_in}`)
  assert.ok(token.scope.split(' ').includes(scope), `scope is ${token.scope}`)
  const request = new Request('https://resource.test/', { headers: { authorization: `Bearer ${token.access_token}` } })
  const claims = await oauth.validateJwtAccessToken(server, request, parameters.audience, options)
  assert.equal(claims.client_id, client.client_id)
  return claims
}

// The code in the body; the library looks at a challenge in the header first, where there is one.
async function refusal(code, action) {
  let answer
  try {
    answer = await action()
  } catch (error) {
    if (error instanceof oauth.WWWAuthenticateChallengeError) {
      assert.equal(error.cause[0].scheme, 'basic')
      const body = await error.response.json()
      assert.equal(body.error, code)
      return { status: error.status, error: body.error, challenge: error.cause[0] }
    }
    if (error instanceof oauth.ResponseBodyError) {
      assert.equal(error.error, code)
      return { status: error.status, error: error.error }
    }
    throw error
  }
  assert.fail(`not refused with ${code}, but given ${Object.keys(answer)}`)
}

const steps = {
  async discovery() {
    const found = {}
    for (const algorithm of ['oidc', 'oauth2']) {
      const response = await oauth.discoveryRequest(issuer, { ...options, algorithm })
      found[algorithm] = await oauth.processDiscoveryResponse(issuer, response)
    }
    server = found.oauth2
    for (const [name, value] of Object.entries(server)) assert.deepEqual(found.oidc[name], value, name)
    const response = await oauth.resourceDiscoveryRequest(issuer, options)
    const resource = await oauth.processResourceDiscoveryResponse(issuer, response)
    assert.deepEqual(resource.authorization_servers, [server.issuer])
    return Object.keys(found.oidc).sort()
  },

  async secretInHeader() {
    const client = { client_id: secretClient.id }
    const token = await clientCredentials(client, oauth.ClientSecretBasic(secretClient.secret))
    assert.equal(token.refresh_token, undefined)
    return checked(token, client)
  },

  async secretInForm() {
    const client = { client_id: secretClient.id }
    return checked(await clientCredentials(client, oauth.ClientSecretPost(secretClient.secret)), client)
  },

  async privateKeys() {
    for (const keyClient of keyClients) {
      const client = { client_id: keyClient.id }
      const key = await privateKey(keyClient)
      for (const kid of [keyClient.kid, undefined]) {
        await checked(await clientCredentials(client, oauth.PrivateKeyJwt({ key, kid })), client)
      }
    }
    return keyClients.map(({ algorithm }) => algorithm)
  },

  async replayedAssertion() {
    const [keyClient] = keyClients
    const client = { client_id: keyClient.id }
    const id = crypto.randomUUID()
    const once = (_header, payload) => { payload.jti = id }
    const key = { key: await privateKey(keyClient), kid: keyClient.kid }
    const authentication = oauth.PrivateKeyJwt(key, { [oauth.modifyAssertion]: once })
    await checked(await clientCredentials(client, authentication), client)
    return refusal('invalid_client', () => clientCredentials(client, authentication))
  },

  async wrongSecret() {
    const client = { client_id: secretClient.id }
    const wrong = secretClient.secret.slice(0, -1) + (secretClient.secret.endsWith('a') ? 'b' : 'a')
    const basic = await refusal('invalid_client', () => clientCredentials(client, oauth.ClientSecretBasic(wrong)))
    assert.ok(basic.challenge, 'there is no challenge, although the header was used')
    return refusal('invalid_client', () => clientCredentials(client, oauth.ClientSecretPost(wrong)))
  },

  async scopeThatCannotBeHad() {
    const client = { client_id: secretClient.id }
    const authentication = oauth.ClientSecretBasic(secretClient.secret)
    return refusal('invalid_scope', () => clientCredentials(client, authentication, { scope: 'nobody:has:this' }))
  },

  async introspectionAndRevocation() {
    const client = { client_id: secretClient.id }
    const authentication = oauth.ClientSecretBasic(secretClient.secret)
    const { access_token: token } = await clientCredentials(client, authentication)
    const introspect = async (token) => {
      const response = await oauth.introspectionRequest(server, client, authentication, token, options)
      return oauth.processIntrospectionResponse(server, client, response)
    }
    const told = await introspect(token)
    assert.equal(told.active, true)
    assert.equal(told.client_id, client.client_id)
    assert.deepEqual(await introspect('garbage'), { active: false })
    for (let turn = 0; turn < 2; turn += 1) {
      await oauth.processRevocationResponse(
        await oauth.revocationRequest(server, client, authentication, token, options),
      )
    }
    assert.deepEqual(await introspect(token), { active: false })
    return told
  },

  async refresh() {
    const client = { client_id: login.client_id }
    const refresh = async (token, more) => {
      const request = oauth.refreshTokenGrantRequest(server, client, oauth.None(), token, {
        ...options,
        additionalParameters: more,
      })
      return oauth.processRefreshTokenResponse(server, client, await request)
    }
    const second = await refresh(login.refresh_token)
    assert.notEqual(second.refresh_token, login.refresh_token)
    const claims = await checked(second, client)
    const narrow = await refresh(second.refresh_token, { scope })
    assert.equal(narrow.scope, scope)
    await oauth.processRevocationResponse(
      await oauth.revocationRequest(server, client, oauth.None(), narrow.refresh_token, options),
    )
    await refusal('invalid_grant', () => refresh(narrow.refresh_token))
    return claims
  },
}

for (const [step, run] of Object.entries(steps)) {
  try {
    console.log(JSON.stringify({ step, result: await run() }))
  } catch (error) {
    console.error(`${step}: ${error.name}: ${error.message}`)
    if (error.cause) console.error(error.cause)
    process.exit(1)
  }
}
