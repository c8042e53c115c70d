// Follows walletChanged with npm's graphql-ws and graphql-sse through a reconnect. Speaks with the test on stdin and stdout:
// every event is printed as a line; a line on stdin is a command: `drop` breaks the connection, `back` lets the client's own
// retry go on, `end` ends.
import { createInterface } from 'node:readline'
import { createClient as overSocket } from 'graphql-ws'
import { createClient as overEvents } from 'graphql-sse'
import WebSocket from 'ws'

const [url, token, documentId, which, after] = process.argv.slice(2)
const tell = (what) => console.log(JSON.stringify(what))
let drop, back
const untilBack = () => { tell({ dropped: true }); return new Promise((resolve) => { back = resolve }) }

const client = which === 'ws'
  ? overSocket({
      url: url.replace('http', 'ws'), webSocketImpl: WebSocket, connectionParams: { Authorization: `Bearer ${token}` },
      shouldRetry: () => true, retryWait: untilBack,
      on: { connected: (socket) => { drop = () => socket.terminate() } },
    })
  : overEvents({
      url, headers: { Authorization: `Bearer ${token}` }, retry: untilBack,
      fetchFn: (address, init) => {
        const ours = new AbortController()
        drop = () => ours.abort()
        return fetch(address, { ...init, signal: AbortSignal.any([init.signal, ours.signal]) })
      },
    })

// Both clients send this object again when they come back, so it is kept at the last cursor that was seen.
const variables = { after: after ?? null }
client.subscribe({ query: '', documentId, variables }, {
  next: (result) => {
    if (result.data) variables.after = result.data.walletChanged.cursor
    tell(result)
  },
  error: (error) => tell({ error: Array.isArray(error) ? error : String(error.message ?? error.reason ?? error) }),
  complete: () => tell({ complete: true }),
})

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'drop') drop()
  if (line === 'back') back()
  if (line === 'end') break
}
process.exit(0)
