// openid-client, which we did not write, goes through the authorization server's flows; prints what it saw as JSON.
// Arguments: issuer, then a JSON object of what the test prepared.
import * as oauth from 'openid-client'

const [issuer, prepared] = [process.argv[2], JSON.parse(process.argv[3])]
const insecure = { algorithm: 'oauth2', execute: [oauth.allowInsecureRequests] }
const seen = {}

const discover = (id, metadata, authentication) => oauth.discovery(new URL(issuer), id, metadata, authentication, insecure)
const refusal = async (work) => {
  try {
    await work()
    return 'accepted'
  } catch (error) {
    return error.error ?? error.cause?.error ?? error.code ?? String(error)
  }
}
const algorithms = {
  ES256: { name: 'ECDSA', namedCurve: 'P-256' }, PS256: { name: 'RSA-PSS', hash: 'SHA-256' }, EdDSA: { name: 'Ed25519' },
}
const importKey = async ({ alg, ...jwk }) => ({ key: await crypto.subtle.importKey('jwk', jwk, algorithms[alg], true, ['sign']), kid: jwk.kid })
const query = '{ partner { code } }'
const ask = async (config, tokens, options) => {
  const headers = new Headers({ 'content-type': 'application/json' })
  const body = JSON.stringify({ query })
  try {
    const answer = await oauth.fetchProtectedResource(config, tokens, new URL(`${issuer}/graphql`), 'POST', body, headers, options)
    return [answer.status, (await answer.json()).data?.partner?.code ?? null]
  } catch (error) {
    return [error.status ?? error.cause?.[0]?.status ?? error.response?.status ?? 0, error.code]
  }
}

// Partners: secrets, by both ways
const basic = await discover(prepared.secret.id, prepared.secret.secret, oauth.ClientSecretBasic(prepared.secret.secret))
const byBasic = await oauth.clientCredentialsGrant(basic)
seen.basic = await ask(basic, byBasic.access_token)
const post = await discover(prepared.secret.id, prepared.secret.secret, oauth.ClientSecretPost(prepared.secret.secret))
seen.post = await ask(post, (await oauth.clientCredentialsGrant(post)).access_token)
const wrong = await discover(prepared.secret.id, 'wrong', oauth.ClientSecretBasic('wrong'))
seen.wrongSecret = await refusal(() => oauth.clientCredentialsGrant(wrong))
seen.introspected = (await oauth.tokenIntrospection(basic, byBasic.access_token)).active
await oauth.tokenRevocation(basic, byBasic.access_token)

// Operators: a one-time code beside the password, and a login that is strong enough for what matters
const console_ = await discover('console', undefined, oauth.None())
const operate = async (how, changes = {}) => {
  const pkceCodeVerifier = oauth.randomPKCECodeVerifier()
  const url = oauth.buildAuthorizationUrl(console_, {
    redirect_uri: `${issuer}/graphiql`, scope: 'settlement:close',
    code_challenge: await oauth.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256', ...changes,
  })
  const answer = await fetch(url, { ...how, redirect: 'manual' })
  if (answer.status !== 303) return { status: answer.status }
  return oauth.authorizationCodeGrant(console_, new URL(answer.headers.get('location')), { pkceCodeVerifier })
}
const filled = (form) => ({ method: 'POST', body: new URLSearchParams(form) })
const close = async (tokens) => {
  const headers = new Headers({ 'content-type': 'application/json' })
  const body = JSON.stringify({ query: 'mutation { closePeriod(input: {month: "2025-12"}) { errors { code } } }' })
  try {
    const answer = await oauth.fetchProtectedResource(console_, tokens.access_token, new URL(`${issuer}/graphql`), 'POST', body, headers)
    return [answer.status, (await answer.json()).data.closePeriod.errors[0].code]
  } catch (error) {
    return error.cause[0].parameters
  }
}
seen.withoutOneTimeCode = (await operate(filled({ ...prepared.operator, code: '' }))).status
const challenge = await close(await operate({ headers: { cookie: prepared.staleSession } }))
seen.stepUpAsked = challenge
const strong = { acr_values: challenge.acr_values, max_age: challenge.max_age }
seen.steppedUp = await close(await operate(filled(prepared.operator), strong))
seen.oneTimeCodeAgain = (await operate(filled(prepared.operator), strong)).status

// Partners: keys of every kind, with tokens that are bound
seen.algorithms = []
for (const jwk of prepared.keyed.jwks) {
  const config = await discover(prepared.keyed.id, undefined, oauth.PrivateKeyJwt(await importKey(jwk)))
  const DPoP = oauth.getDPoPHandle(config, await oauth.randomDPoPKeyPair('ES256'))
  const { access_token } = await oauth.clientCredentialsGrant(config, {}, { DPoP })
  seen.algorithms.push([jwk.alg, ...await ask(config, access_token, { DPoP })])
}
const key = await importKey(prepared.keyed.jwks[0])
const keyed = await discover(prepared.keyed.id, undefined, oauth.PrivateKeyJwt(key))
const handle = oauth.getDPoPHandle(keyed, await oauth.randomDPoPKeyPair('ES256'))
const bound = await oauth.clientCredentialsGrant(keyed, {}, { DPoP: handle })
seen.boundType = bound.token_type.toLowerCase()
seen.bound = await ask(keyed, bound.access_token, { DPoP: handle })
seen.boundAsBearer = await ask(keyed, bound.access_token)
const stranger = oauth.getDPoPHandle(keyed, await oauth.randomDPoPKeyPair('ES256'))
seen.boundByStranger = await ask(keyed, bound.access_token, { DPoP: stranger })
seen.unboundForBoundClient = await refusal(() => oauth.clientCredentialsGrant(keyed))
let assertion
const recording = oauth.PrivateKeyJwt(key, { [oauth.modifyAssertion]: (header, payload) => { assertion = payload } })
const fixed = await discover(prepared.keyed.id, undefined, recording)
await oauth.clientCredentialsGrant(fixed, {}, { DPoP: handle })
const replaying = oauth.PrivateKeyJwt(key, { [oauth.modifyAssertion]: (header, payload) => { payload.jti = assertion.jti } })
const replayed = await discover(prepared.keyed.id, undefined, replaying)
seen.replayedAssertion = await refusal(() => oauth.clientCredentialsGrant(replayed, {}, { DPoP: handle }))
const elsewhere = oauth.PrivateKeyJwt(key, { [oauth.modifyAssertion]: (header, payload) => { payload.aud = 'https://elsewhere.example' } })
const foreign = await discover(prepared.keyed.id, undefined, elsewhere)
seen.wrongAudience = await refusal(() => oauth.clientCredentialsGrant(foreign, {}, { DPoP: handle }))

// Members' apps: code with PKCE, pushed and not; refresh; reuse
const app = await discover(prepared.app.id, undefined, oauth.None())
const logIn = async (pushed, changes = {}) => {
  const verifier = oauth.randomPKCECodeVerifier()
  const state = oauth.randomState()
  const parameters = {
    redirect_uri: prepared.app.redirect, scope: 'profile:read balance:read', state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...changes,
  }
  const url = pushed ? await oauth.buildAuthorizationUrlWithPAR(app, parameters) : oauth.buildAuthorizationUrl(app, parameters)
  const form = new URLSearchParams({ login: prepared.app.login, password: prepared.app.password })
  const answer = await fetch(url, { method: 'POST', body: form, redirect: 'manual' })
  const location = answer.headers.get('location')
  return { verifier, state, status: answer.status, landed: location && new URL(location), url }
}
const redeem = ({ landed, verifier, state }, pkceCodeVerifier = verifier) =>
  oauth.authorizationCodeGrant(app, landed, { pkceCodeVerifier, expectedState: state })
const me = async (tokens) => (await fetch(`${issuer}/graphql`, {
  method: 'POST', body: JSON.stringify({ documentId: prepared.app.me }),
  headers: { 'content-type': 'application/json', authorization: `Bearer ${tokens.access_token}` },
})).status

const first = await logIn(false)
const tokens = await redeem(first)
seen.code = await me(tokens)
seen.hasRefresh = typeof tokens.refresh_token === 'string'
const pushedLogin = await logIn(true)
seen.pushed = [pushedLogin.url.searchParams.has('scope'), await me(await redeem(pushedLogin))]
seen.pushedTwice = (await fetch(pushedLogin.url, { redirect: 'manual' })).status
seen.plainPkce = await refusal(async () => {
  const plain = await logIn(false, { code_challenge_method: 'plain' })
  if (plain.landed?.searchParams.get('error')) throw { error: plain.landed.searchParams.get('error') }
})
seen.foreignRedirect = (await logIn(false, { redirect_uri: 'https://elsewhere.example/cb' })).status
const other = await logIn(false)
seen.wrongVerifier = await refusal(() => redeem(other, oauth.randomPKCECodeVerifier()))
const twice = await logIn(false)
const once = await redeem(twice)
seen.replayedCode = await refusal(() => redeem(twice))
seen.refreshAfterReplay = await refusal(() => oauth.refreshTokenGrant(app, once.refresh_token))

const second = await oauth.refreshTokenGrant(app, tokens.refresh_token)
seen.refreshed = await me(second)
const third = await oauth.refreshTokenGrant(app, second.refresh_token)
seen.reused = await refusal(() => oauth.refreshTokenGrant(app, tokens.refresh_token))
seen.familyEnded = await refusal(() => oauth.refreshTokenGrant(app, third.refresh_token))

const last = await redeem(await logIn(false))
await oauth.tokenRevocation(app, last.refresh_token)
seen.refreshRevoked = await refusal(() => oauth.refreshTokenGrant(app, last.refresh_token))

// A member's app whose tokens are bound to a key, the refresh token too
const appKey = oauth.getDPoPHandle(app, await oauth.randomDPoPKeyPair('ES256'))
const otherKey = oauth.getDPoPHandle(app, await oauth.randomDPoPKeyPair('ES256'))
const boundLogin = await logIn(false)
const boundApp = await oauth.authorizationCodeGrant(
  app, boundLogin.landed, { pkceCodeVerifier: boundLogin.verifier, expectedState: boundLogin.state }, {}, { DPoP: appKey })
const boundMe = async (tokens, DPoP) => {
  const headers = new Headers({ 'content-type': 'application/json' })
  const body = JSON.stringify({ documentId: prepared.app.me })
  try {
    return (await oauth.fetchProtectedResource(app, tokens.access_token, new URL(`${issuer}/graphql`), 'POST', body, headers, { DPoP })).status
  } catch (error) {
    return error.status
  }
}
seen.boundApp = [await boundMe(boundApp, appKey), await boundMe(boundApp, otherKey), await me(boundApp)]
seen.boundRefreshByOther = await refusal(() => oauth.refreshTokenGrant(app, boundApp.refresh_token, {}, { DPoP: otherKey }))
seen.boundRefreshUnbound = await refusal(() => oauth.refreshTokenGrant(app, boundApp.refresh_token))
seen.boundRefresh = await boundMe(await oauth.refreshTokenGrant(app, boundApp.refresh_token, {}, { DPoP: appKey }), appKey)

// A partner that acts for a member: consent on the page, a refresh token that is not rotated, token exchange
const partner = await discover(prepared.partner.id, prepared.partner.secret, oauth.ClientSecretBasic(prepared.partner.secret))
const consented = async (decision, changes = {}) => {
  const pkceCodeVerifier = oauth.randomPKCECodeVerifier()
  const url = await oauth.buildAuthorizationUrlWithPAR(partner, {
    redirect_uri: prepared.partner.redirect, scope: 'balance:read profile:read', data_classes: 'contact',
    code_challenge: await oauth.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256', ...changes,
  })
  const form = new URLSearchParams({ login: prepared.app.login, password: prepared.app.password, decision })
  const page = await (await fetch(url, { redirect: 'manual' })).text()
  form.set('told', /name="told" value="(\w+)"/.exec(page)?.[1] ?? '')
  const answer = await fetch(url, { method: 'POST', body: form, redirect: 'manual' })
  return oauth.authorizationCodeGrant(partner, new URL(answer.headers.get('location')), { pkceCodeVerifier })
}
const acting = async (tokens) => (await fetch(`${issuer}/graphql`, {
  method: 'POST', body: JSON.stringify({ query: '{ me { id } }' }),
  headers: { 'content-type': 'application/json', authorization: `Bearer ${tokens.access_token}` },
})).status
const exchange = (subject_token, more = {}) => oauth.genericGrantRequest(partner, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token', ...more,
})
const own = await redeem(await logIn(false))
seen.exchangedWithoutConsent = await refusal(() => exchange(own.access_token))
seen.consentDenied = await refusal(() => consented('deny'))
seen.foreignResource = await refusal(() => consented('allow', { resource: 'https://elsewhere.example' }))
const allowed = await consented('allow')
seen.consented = await acting(allowed)
seen.notRotated = [await acting(await oauth.refreshTokenGrant(partner, allowed.refresh_token)),
  (await oauth.refreshTokenGrant(partner, allowed.refresh_token)).refresh_token ?? null]
seen.refreshByStranger = await refusal(() => oauth.refreshTokenGrant(basic, allowed.refresh_token))
const exchanged = await exchange(own.access_token, { scope: 'profile:read', resource: `${issuer}/graphql` })
seen.exchanged = [await acting(exchanged), exchanged.scope]
seen.exchangedWider = await refusal(() => exchange(own.access_token, { scope: 'points:transfer' }))
seen.exchangedAgain = await refusal(() => exchange(exchanged.access_token))

// The member ends it in its app.
const managing = await redeem(await logIn(false, { scope: 'consents:manage profile:read' }))
const manage = async (documentId, variables) => (await (await fetch(`${issuer}/graphql`, {
  method: 'POST', body: JSON.stringify({ documentId, variables }),
  headers: { 'content-type': 'application/json', authorization: `Bearer ${managing.access_token}` },
})).json()).data
seen.exchangedWithAllOfIt = await refusal(() => exchange(managing.access_token))
const consents = (await manage(prepared.app.consents)).me.consents
seen.consentsListed = consents.map(({ partner, scopes }) => [partner.code, scopes])
seen.withdrawn = (await manage(prepared.app.withdraw, { i: { consent: consents[0].id } })).withdrawConsent.errors
seen.refreshAfterWithdrawal = await refusal(() => oauth.refreshTokenGrant(partner, allowed.refresh_token))
seen.exchangedAfterWithdrawal = await refusal(() => exchange(own.access_token))

// Revocations take effect within two seconds.
await new Promise((resolve) => setTimeout(resolve, 2000))
seen.revokedPartner = await ask(basic, byBasic.access_token)
seen.revokedIntrospected = (await oauth.tokenIntrospection(basic, byBasic.access_token)).active
seen.revokedMember = await me(last)
seen.endedFamilyMember = await me(third)
seen.actingAfterWithdrawal = await acting(exchanged)
console.log(JSON.stringify(seen))
