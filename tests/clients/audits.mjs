// graphql-http's audits of GraphQL over HTTP against an endpoint; prints name and outcome of each as JSON.
import { serverAudits } from 'graphql-http'

const found = []
const [url, token] = process.argv.slice(2)
// One audit asks for the schema, which is told to partners and operators.
const fetchFn = (to, options = {}) =>
  fetch(to, { ...options, headers: { ...options.headers, authorization: `Bearer ${token}` } })
for (const audit of serverAudits({ url, fetchFn })) {
  const result = await audit.fn()
  found.push({ id: audit.id, name: audit.name, status: result.status, reason: result.reason ?? null })
}
console.log(JSON.stringify(found))
