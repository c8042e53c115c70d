// Follows walletChanged with npm's graphql-ws and graphql-sse through a reconnect. Speaks with the test on stdin and stdout:
// every event is printed as a line; a line on stdin is a command.
import { createInterface } from 'node:readline'
import { createClient as overSocket } from 'graphql-ws'
import { createClient as overEvents } from 'graphql-sse'
import WebSocket from 'ws'

const [url, token, documentId, which, after] = process.argv.slice(2)
let cursor = after ?? null
const tell = (what) => console.log(JSON.stringify(what))
let live

const client = which === 'ws'
  ? overSocket({
      url: url.replace('http', 'ws'), webSocketImpl: WebSocket, connectionParams: { Authorization: `Bearer ${token}` },
      retryAttempts: 5, shouldRetry: () => true,
      on: { connected: (socket) => { live = socket; tell({ connected: true }) }, closed: (event) => tell({ closed: event.code }) },
    })
  : overEvents({ url, headers: { Authorization: `Bearer ${token}` }, retryAttempts: 5 })

// One subscription until it ends; the next one names the last cursor that was seen.
async function follow() {
  await new Promise((resolve) => {
    client.subscribe({ query: '', documentId, variables: { after: cursor } }, {
      next: (result) => {
        if (result.data) cursor = result.data.walletChanged.cursor
        tell(result)
      },
      error: (error) => { tell({ error: Array.isArray(error) ? error : String(error.message ?? error.reason ?? error) }); resolve() },
      complete: () => { tell({ complete: true }); resolve() },
    })
  })
}

let following = follow()
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'drop') live.terminate()
  if (line === 'again') following = follow()
  if (line === 'end') break
}
process.exit(0)
