// npm's oidc-provider as an identity provider of somebody else: gives tills JWT access tokens for the gateway.
import { createServer } from 'node:http'
import Provider from 'oidc-provider'

const [port, audience] = process.argv.slice(2)
const issuer = `http://127.0.0.1:${port}`
const scopes = 'partner points:earn members:lookup settlement:close'
const provider = new Provider(issuer, {
  clients: [
    { client_id: 'till-1', client_secret: 'till-1-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
    { client_id: 'stranger', client_secret: 'stranger-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
  ],
  scopes: scopes.split(' '),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      getResourceServerInfo: (_, resource) => ({
        scope: scopes, audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
})
const counts = { jwks: 0 }
const server = createServer((request, response) => {
  if (request.url === '/counts') return response.end(JSON.stringify(counts))
  if (request.url === '/jwks') counts.jwks += 1
  return provider.callback()(request, response)
})
server.listen(Number(port), '127.0.0.1', () => console.log('ready'))
