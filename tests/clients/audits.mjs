// graphql-http's audits of GraphQL over HTTP against an endpoint; prints name and outcome of each as JSON.
import { serverAudits } from 'graphql-http'

const found = []
for (const audit of serverAudits({ url: process.argv[2], fetchFn: fetch })) {
  const result = await audit.fn()
  found.push({ id: audit.id, name: audit.name, status: result.status, reason: result.reason ?? null })
}
console.log(JSON.stringify(found))
