"""What every session asks of PostgreSQL: to give a machine up that has vanished, with what it had begun.

Within a transaction it would keep its locks, and every reader of the outbox waiting, until the server's own kernel noticed, by
default after two hours (decision 0041).
"""

# What the other end, or whatever lies between, has not even taken in by then is lost with its connection; who says nothing for
# IDLE_SECONDS is asked whether it is there, ASKED_TIMES at most. So does the server with us.
UNTAKEN_SECONDS, IDLE_SECONDS, ASKED_TIMES = 10, 10, 3
WHERE_NOBODY_IS = {
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "tcp_user_timeout": f"{UNTAKEN_SECONDS}s",
    "tcp_keepalives_idle": f"{IDLE_SECONDS}s",
    "tcp_keepalives_interval": "1s",
    "tcp_keepalives_count": str(ASKED_TIMES),
}
